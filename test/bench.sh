#!/usr/bin/env bash
# bench.sh - what connecting costs, with the real programs in network namespaces;
# `make bench` runs it after the Go benchmarks. What the tunnel carries is measured by
# test/bench/dataplane.
#
#     test/bench.sh [connect] [handshakes]      (default: both)
#
# connect      wall time of "vpn-client up", and of IKE in it; median of 20
# handshakes   CPU time per handshake of the gateway's process by kind of credentials,
#              and its growth in memory per client, with 200 and 1000 clients
#
# Numbers depend on the machine and on what else it does: compare ratios, and run it on
# an idle one. CPU time is of the whole process, user and system.
set -u
cd "$(dirname "$0")/.." || exit 1
[ "$(id -u)" = 0 ] || { echo "the benchmarks in namespaces are left out: they need root"; exit 0; }
TEST=bench PREFIX=wfbench$$
. test/ns/lib.sh
trap 'rm -rf "${SCRATCH:-}"' EXIT
trap 'exit 130' INT; trap 'exit 143' TERM HUP
SCRATCH=$(mktemp -d)
NSTOOL=$SCRATCH/nstool
CGO_ENABLED=0 go build -o "$SCRATCH/" ./test/ns/nstool ./test/bench/ikeload || exit 1

median() { sort -n | awk '{v[NR] = $1} END {print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }
cpu_ms() { awk -v hz="$(getconf CLK_TCK)" '{sub(/.*\) /, ""); print ($12 + $13) * 1000 / hz}' "/proc/$1/stat"; }
rss_kib() { awk '/^VmRSS/ {print $2}' "/proc/$1/status"; }
oops() { echo "bench: $*" >&2; show_logs >&2; exit 1; }
# pin CPU NAME: give a background command a core of its own, where there are two.
pin() { [ "$(nproc)" -lt 2 ] || taskset -a -p -c "$1" "$(pid_of "$2")" >/dev/null 2>&1; }

connect() {
	local i began
	server_init && server_start && user_add alice && client_start || oops "no gateway or client"
	: >"$WORK/wall"
	for i in $(seq 20); do
		began=$(date +%s%N)
		vpn_client up alice >/dev/null || oops "not connected"
		echo $((($(date +%s%N) - began) / 10000)) >>"$WORK/wall"
		vpn_client down >/dev/null
	done
	echo "connect: vpn-client up $(median <"$WORK/wall" | awk '{print $1 / 100}') ms, of which IKE $(
		sed -nE 's/.*msg="session up".* took=([0-9.]+)(µs|ms|s)( .*)?$/\1 \2/p' "$WORK/server.log" |
			awk '{print $1 * ($2 == "ms" ? 1 : $2 == "s" ? 1000 : 0.001)}' | median) ms at the gateway (median of 20)"
	end client; end server
}

# gateway_for KIND: a gateway for a crowd of one identity with that kind of credentials.
gateway_for() {
	local config=/etc/wayfarer/server.toml
	local key=$1; [ "$1" = psk ] && key=ecdsa-p256
	server_init --force --key-type "$key" --pool4 10.90.0.0/16
	on gateway sh -c "sed -i -e 's/^# unique = .*/unique = \"never\"/' -e 's/^# cookie_threshold = .*/cookie_threshold = 100000/' \
		-e 's/^# sessions_per_identity = .*/sessions_per_identity = 0/' -e 's/^# half_open_per_address = .*/half_open_per_address = 100000/' -e 's/^# rekey_ike = .*/rekey_ike = \"0\"/' \
		-e 's/^# rekey_child = .*/rekey_child = \"0\"/' -e 's/^# dpd_delay = .*/dpd_delay = \"0\"/' \
		-e 's/^# level = .*/level = \"error\"/' $config"
	on gateway "$BIN/vpn-server" check >/dev/null || oops "the configuration is wrong"
	# shellcheck disable=SC2046 # two words or none
	server_start && user_add alice --replace --key-type "$key" $([ "$1" = psk ] && echo --psk) || user_add alice --key-type "$key" $([ "$1" = psk ] && echo --psk) || oops "no user"
	pin 0 server
}
handshakes() {
	local kind n pid cpu rss
	printf '%-12s %8s %22s %20s %12s %14s\n' credentials clients 'CPU ms/handshake' 'KiB RSS/client' handshakes/s 'median ms'
	for kind in psk ecdsa-p256 rsa2048 ed25519; do
		for n in 200 1000; do
			gateway_for $kind; pid=$(pid_of server)
			on laptop "$SCRATCH/ikeload" -clients 5 "$WORK/alice.toml" >/dev/null || oops "the load cannot connect"
			sleep 0.5; cpu=$(cpu_ms "$pid") rss=$(rss_kib "$pid")
			onbg load laptop "$SCRATCH/ikeload" -clients $n -hold "$WORK/alice.toml"; pin 1 load
			within 120 grep -q '^ready' "$WORK/load.log" || oops "the load does not finish: $(cat "$WORK/load.log")"
			sleep 0.5
			[ "$(figure load ok)" = $n ] || echo "only $(figure load ok) of $n connected"
			awk -v k=$kind -v n=$n -v c="$cpu" -v c2="$(cpu_ms "$pid")" -v r="$rss" -v r2="$(rss_kib "$pid")" -v rate="$(figure load rate)" -v m="$(figure load median_ms)" \
				'BEGIN {printf "%-12s %8d %22.2f %20.1f %12d %14.1f\n", k, n, (c2 - c) / n, (r2 - r) / n, rate, m}'
			end load; end server
		done
	done
}

network_up || exit 1
[ $# -gt 0 ] || set -- connect handshakes
for part; do
	case $part in
	connect | handshakes) echo "== $part"; $part;;
	*) echo "bench.sh: unknown part $part" >&2; exit 2;;
	esac
done
