# peer.sh - Wayfarer as a peer of a benchmark that joins two namespaces; sourced.
#
# It defines three functions for a harness that has made the namespaces and the network
# between them:
#     ours_server NS DIR    a gateway in NS; returns when it is ready
#     ours_client NS DIR    a client in NS; returns when the tunnel carries traffic
#     ours_inner            prints the inner address of the gateway
# Both write the ids of the processes that carry the data, one a line, to
# DIR/server.pids and DIR/client.pids, and their logs to DIR. The caller ends them by these.
#
# NAME            which variant: ours (ESP with AES-128-GCM), ours-aes256, ours-chacha,
#                 ours-cbc (AES-128-CBC with HMAC-SHA2-256); ours-xfrm (the kernel's ESP)
# SRV_OUT         outer address of the gateway (192.168.77.1)
# OURS_BIN        directory of vpn-server and vpn-client; without it they are built into bin/
# OURS_MTU        MTU of both TUN devices (1420, as WireGuard has it: on an outer MTU of 1500
#                 ESP with AES-GCM in UDP would leave room for 1438)
# OURS_PROCS      GOMAXPROCS of both programs, for experiments
# OURS_ENV        further environment of both programs, NAME=VALUE words
ours_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

ours_esp() {
	case ${NAME:-ours} in
	*-aes256*) echo aes256gcm16 ;;
	*-chacha*) echo chacha20poly1305 ;;
	*-cbc*) echo aes128-sha256 ;;
	*) echo aes128gcm16 ;;
	esac
}

ours_datapath() { case ${NAME:-ours} in *-xfrm*) echo xfrm ;; *) echo tun ;; esac; }

# ours_bins: OURS_BIN, built when the caller has not named one.
ours_bins() {
	[ -n "${OURS_BIN:-}" ] && return
	OURS_BIN=$ours_root/bin
	make -s -C "$ours_root" build >&2
}

# ours_run NS PIDS LOG COMMAND...: in the background, with its id in PIDS.
ours_run() {
	local ns=$1 pids=$2 log=$3
	shift 3
	# shellcheck disable=SC2086 # words
	ip netns exec "$ns" env ${OURS_PROCS:+GOMAXPROCS=$OURS_PROCS} ${OURS_ENV:-} "$@" </dev/null >"$log" 2>&1 &
	echo $! >"$pids"
}

# ours_ready SECONDS COMMAND...: until it succeeds.
ours_ready() {
	local n=$(($1 * 20))
	shift
	until "$@" >/dev/null 2>&1; do
		n=$((n - 1))
		[ $n -gt 0 ] || return 1
		sleep 0.05
	done
}

ours_server() {
	local ns=$1 d=$2/ours
	ours_bins || return 1
	# A gateway of an earlier run in this directory is not reused: the name may differ.
	rm -rf "$d"
	mkdir -p "$d"
	"$OURS_BIN/vpn-server" init --name server.bench --address "${SRV_OUT:-192.168.77.1}" --pool4 10.77.0.0/24 --dns 10.77.0.1 \
		--dir "$d/etc" --state "$d/state" >"$2/init.log" 2>&1 || return 1
	sed -i -e "s|^masquerade = .*|masquerade = false|" -e "s|^# mtu = .*|mtu = ${OURS_MTU:-1420}|" -e "s|^# esp = .*|esp = \"$(ours_esp)\"|" \
		-e "s|^# datapath = .*|datapath = \"$(ours_datapath)\"|" -e "s|^# socket = .*|socket = \"$d/server.sock\"|" "$d/etc/server.toml"
	local server=("$OURS_BIN/vpn-server" --config "$d/etc/server.toml")
	"${server[@]}" user add bench --psk >>"$2/init.log" 2>&1 && "${server[@]}" profile export bench >"$d/bench.toml" || return 1
	ours_run "$ns" "$2/server.pids" "$2/server.log" "${server[@]}" run
	ours_ready 15 "${server[@]}" status
}

ours_client() {
	local ns=$1 d=$2/ours
	ours_bins || return 1
	cat >"$d/client.toml" <<-C
		profile_dir = "$d/profiles"
		state_dir = "$d/client"
		socket = "$d/client.sock"
		datapath = "$(ours_datapath)"
	C
	sed -i -e "s|^# mtu = .*|mtu = ${OURS_MTU:-1420}|" -e "s|^# esp = .*|esp = \"$(ours_esp)\"|" -e 's|^# dns = .*|dns = false|' \
		-e 's|^# routes = .*|routes = ["10.77.0.0/24"]|' "$d/bench.toml"
	local client=("$OURS_BIN/vpn-client" --config "$d/client.toml")
	"${client[@]}" import --force "$d/bench.toml" >"$2/import.log" 2>&1 || return 1
	ours_run "$ns" "$2/client.pids" "$2/client.log" "${client[@]}" run
	ours_ready 15 "${client[@]}" status && "${client[@]}" up bench --timeout 15s >"$2/up.log" 2>&1
}

ours_inner() { echo 10.77.0.1; }
