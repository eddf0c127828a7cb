#!/usr/bin/env bash
# bench.sh - what connecting costs and what the tunnel carries, with the real programs in
# network namespaces; `make bench` runs it after the Go benchmarks.
#
#     test/bench.sh [connect] [handshakes] [throughput]      (default: all)
#
# connect      wall time of "vpn-client up", and of IKE in it; median of 20
# handshakes   CPU time per handshake of the gateway's process by kind of credentials,
#              and its growth in memory per client, with 200 and 1000 clients
# throughput   TCP through the tunnel, both ways, beside no tunnel and wireguard-go
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
CGO_ENABLED=0 go build -o "$SCRATCH/" ./test/ns/nstool ./test/bench/ikeload ./test/bench/wgpeer || exit 1

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
		-e 's/^# half_open_per_address = .*/half_open_per_address = 100000/' -e 's/^# rekey_ike = .*/rekey_ike = \"0\"/' \
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

# transfer MACHINE ADDRESS: one TCP stream for 5 s, from the laptop and to it; Gbit/s.
transfer() {
	local args
	for args in "" -R; do
		# shellcheck disable=SC2086 # one word or none
		on laptop iperf3 -c "$1" -p 5301 -t 5 -f g $args 2>&1 | awk '/receiver/ {print $7}'
	done | paste -sd' '
}
report() { awk -v name="$1" -v a="$2" -v b="$3" -v ra="${4:-0}" -v rb="${5:-0}" 'BEGIN {
	printf "%-14s %8.2f Gbit/s up %8.2f Gbit/s down", name, a, b; if (ra > 0) printf "   %.2f and %.2f of wireguard-go", a / ra, b / rb; print ""}'; }
throughput() {
	local up down wup wdown
	command -v iperf3 >/dev/null || { echo "throughput is left out: iperf3 is missing"; return; }
	onbg iperf gateway iperf3 -s -p 5301
	sleep 0.5
	read -r up down <<<"$(transfer $GATEWAY_4)"; report "no tunnel" "$up" "$down"
	onbg wg1 gateway "$SCRATCH/wgpeer" wg0 1 51820; onbg wg2 laptop "$SCRATCH/wgpeer" wg0 2 51820 $GATEWAY_4:51820
	within 10 grep -q ready "$WORK/wg1.log" && within 10 grep -q ready "$WORK/wg2.log" || oops "wireguard-go does not start"
	ip -n "$PREFIX-gateway" addr add 10.99.0.1/24 dev wg0; ip -n "$PREFIX-gateway" link set dev wg0 up
	ip -n "$PREFIX-laptop" addr add 10.99.0.2/24 dev wg0; ip -n "$PREFIX-laptop" link set dev wg0 up
	on laptop ping -q -n -c 1 -W 5 10.99.0.1 >/dev/null
	read -r wup wdown <<<"$(transfer 10.99.0.1)"; report "wireguard-go" "$wup" "$wdown"
	end wg1; end wg2
	server_init --force && server_start && { user_add alice --replace || user_add alice; } && client_start && vpn_client up alice >/dev/null || oops "not connected"
	read -r up down <<<"$(transfer 10.66.0.1)"; report "wayfarer" "$up" "$down" "$wup" "$wdown"
	end client; end server; end iperf
}

network_up || exit 1
[ $# -gt 0 ] || set -- connect handshakes throughput
for part; do
	case $part in
	connect | handshakes | throughput) echo "== $part"; $part;;
	*) echo "bench.sh: unknown part $part" >&2; exit 2;;
	esac
done
