#!/usr/bin/env bash
# adapter.sh - how an interoperability lab drives vpn-server and vpn-client.
#
#     LAB_NS=<namespace> LAB_STATE=<dir> VPN_BIN_DIR=<bin> test/lab/adapter.sh VERB [argument | key=value...]
#
# A lab calls it once per verb; what it has to remember it keeps in LAB_STATE, one
# directory per instance. The product runs inside LAB_NS only and touches nothing of
# the host: it has a /run of its own, and $LAB_STATE/resolv.conf as /etc/resolv.conf.
# Everything is set through the configuration files and read through the control
# socket (`vpn-server status|sessions --json`, `vpn-client status --json`), as an
# administrator's scripts would do it.
#
# Keys of start_server and start_client (all optional, all strings):
#   auth          psk | rsa | ecdsa | ed25519 (default psk); EAP is not there
#   psk           pre-shared key                       (default lab-secret-of-the-day)
#   ca, cert, key, chain   PEM files; chain is a comma list of intermediates
#   id, remote_id          our identity, the identity or pattern demanded of the peer
#   ike, esp               proposals in strongSwan's spelling (default: the product's)
#   mobike, fragmentation  yes | no                    (default yes)
#   childless              never | allow | force
#   rekey_ike, rekey_child seconds, 0 for never        (default 0)
#   dpd_delay, dpd_timeout seconds                     (default 10; the product's)
#   mtu                    of the tunnel's interface
#   ts                     networks behind the server  (default 10.20.0.0/24,fd00:20::/64)
#   server only:  pool4, pool6, dns4, dns6, cookie_threshold
#   client only:  server, reconnect=yes|no (default no)
set -u
BIN=${VPN_BIN_DIR:-}
verb=${1:?verb}; shift
for kv; do case $kv in *=*) declare "p_${kv%%=*}=${kv#*=}";; esac; done
opt() { local v="p_$1"; printf %s "${!v-$2}"; } # opt NAME DEFAULT

PROFILE=lab # the name of the client's profile
SOCKET=${LAB_STATE:-}/control.sock

# --- configuration ------------------------------------------------------------
# TOML values: a string, a list of strings from a comma list, a yes/no, seconds.
text() { local s=${1//\\/\\\\}; printf '"%s"' "${s//\"/\\\"}"; }
list() {
	local out='' x
	for x in ${1//,/ }; do out="$out${out:+, }$(text "$x")"; done
	printf '[%s]' "$out"
}
flag() { case $1 in yes) echo true;; no) echo false;; *) echo "adapter: $1 is neither yes nor no" >&2; return 1;; esac; }
seconds() { printf '"%s"' "${1}$([ "$1" = 0 ] || echo s)"; }
# setting KEY FORMAT NAME [DEFAULT]: a line of the file, none without a value.
setting() {
	local v; v=$(opt "$3" "${4-}")
	[ -z "$v" ] || printf '%s = %s\n' "$1" "$($2 "$v")"
}
plain() { printf %s "$1"; }

method() {
	case $(opt auth psk) in
	psk) echo psk;;
	rsa|ecdsa|ed25519) echo certificate;;
	*) echo "adapter: authentication $(opt auth '') is not supported" >&2; return 1;;
	esac
}

# The shared key goes into a file, so that it may hold any character.
write_secret() { (umask 077; opt psk lab-secret-of-the-day >"$LAB_STATE/psk"); }

# tunnel_settings, crypto_settings, timer_settings: tables that both sides have alike.
tunnel_settings() {
	setting fragmentation flag fragmentation yes
	setting mobike flag mobike yes
	setting childless text childless
	setting mtu plain mtu
}
crypto_settings() { setting ike text ike; setting esp text esp; }
timer_settings() {
	echo 'jitter = 0.0' # the lab wants times without a random part
	setting rekey_ike seconds rekey_ike 0
	setting rekey_child seconds rekey_child 0
	setting dpd_delay seconds dpd_delay 10
	setting dpd_timeout seconds dpd_timeout
}

render_server() {
	local m dns; m=$(method) || return 1
	dns=$(opt dns4 10.20.0.2),$(opt dns6 fd00:20::2)
	cat <<-C
	name = "vpn.example.test"
	$(setting id text id)
	state_dir = $(text "$LAB_STATE/state")
	[control]
	socket = $(text "$SOCKET")
	[log]
	level = "debug"
	[auth]
	methods = ["$m"]
	remote_id = [$(text "$(opt remote_id '*@example.test')")]
	C
	if [ "$m" = certificate ]; then
		echo "ca = $(list "$p_ca")"
		echo "certificate = $(text "$p_cert")"
		echo "key = $(text "$p_key")"
		setting chain list chain
	else
		printf '[[psk]]\nid = "*"\nsecret = %s\n' "$(text "file:$LAB_STATE/psk")"
	fi
	cat <<-C
	[network]
	networks = $(list "$(opt ts 10.20.0.0/24,fd00:20::/64)")
	dns = $(list "$dns")
	$(setting pool4 text pool4 10.30.0.0/24)
	$(setting pool6 text pool6 fd00:30::/112)
	[tunnel]
	$(tunnel_settings)
	[crypto]
	$(crypto_settings)
	[timers]
	$(timer_settings)
	[limits]
	$(setting cookie_threshold plain cookie_threshold)
	C
}

render_client() {
	local m; m=$(method) || return 1
	cat <<-C
	profile_dir = $(text "$LAB_STATE/profiles")
	state_dir = $(text "$LAB_STATE/state")
	socket = $(text "$SOCKET")
	[log]
	level = "debug"
	[profile]
	name = "$PROFILE"
	server = $(text "$(opt server '')")
	id = $(text "$(opt id laptop@example.test)")
	remote_id = $(text "$(opt remote_id vpn.example.test)")
	$(setting reconnect flag reconnect no)
	[profile.auth]
	method = "$m"
	C
	if [ "$m" = certificate ]; then
		echo "ca = $(text "file:$p_ca")"
		echo "certificate = $(text "file:$p_cert")"
		echo "key = $(text "file:$p_key")"
		[ -z "$(opt chain '')" ] || { cat ${p_chain//,/ } >"$LAB_STATE/chain.pem" && echo "chain = $(text "file:$LAB_STATE/chain.pem")"; }
	else
		echo "psk = $(text "file:$LAB_STATE/psk")"
	fi
	cat <<-C
	[profile.tunnel]
	routes = $(list "$(opt ts 10.20.0.0/24,fd00:20::/64)")
	$(tunnel_settings)
	[profile.crypto]
	$(crypto_settings)
	[profile.timers]
	$(timer_settings)
	C
}

# --- the daemon ---------------------------------------------------------------
# ctl ARGS: the command line of whichever side this instance is.
ctl() { "$BIN/vpn-$(cat "$LAB_STATE/role" 2>/dev/null)" --config "$LAB_STATE/config.toml" "$@"; }

# start_daemon server|client: render, start, wait until it answers (at most 10 s).
# The pid file makes `stop` and `crash` end this process and no other.
start_daemon() {
	mkdir -p "$LAB_STATE/state" "$LAB_STATE/profiles"
	echo "$1" >"$LAB_STATE/role"
	write_secret
	(umask 077; "render_$1" >"$LAB_STATE/config.toml") || return 1
	BIN=$BIN/vpn-$1 CONFIG=$LAB_STATE/config.toml PIDFILE=$LAB_STATE/pid RESOLV=$LAB_STATE/resolv.conf \
		setsid ip netns exec "$LAB_NS" unshare -m --propagation private bash -c '
			mount -t tmpfs none /run && : >"$RESOLV" && mount --bind "$RESOLV" /etc/resolv.conf
			echo $$ >"$PIDFILE"; exec "$BIN" --config "$CONFIG"' \
		</dev/null >"$LAB_STATE/log" 2>&1 &
	for _ in $(seq 100); do
		ctl status --json >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	tail -5 "$LAB_STATE/log" >&2
	return 1
}
daemon_pid() { cat "$LAB_STATE/pid" 2>/dev/null; }
alive() { local p; p=$(daemon_pid); [ -n "$p" ] && kill -0 "$p" 2>/dev/null; }

# --- what the product says ----------------------------------------------------
# sessions LINE: a Python expression, or a list of them, for each established IKE SA s
# and its Child SAs s.children; prints a line for each. A daemon that does not answer
# has no SAs.
sessions() {
	{ case $(cat "$LAB_STATE/role" 2>/dev/null) in
		server) ctl sessions --json;;
		client) ctl status --json;;
	esac; } 2>/dev/null | python3 -c '
import json, sys

def endpoint(e):
    """Address and port, from text or from an object."""
    if isinstance(e, dict):
        return e["address"], e["port"]
    host, _, port = e.rpartition(":")
    return host.strip("[]"), port

try:
    answer = json.load(sys.stdin)
except ValueError:
    answer = {}
if "sessions" in answer:  # the gateway
    found = [s for s in answer["sessions"] if s["state"] == "established"]
else:  # the client has one session at most
    found = [answer] if answer.get("spi_r", "0" * 16) != "0" * 16 else []
for s in found:
    children = [c for c in s["children"] if c.get("active", True)]
    for line in '"$1"':
        print(*line)'
}

case $verb in
available)
	[ -n "$BIN" ] && [ -x "$BIN/vpn-server" ] && [ -x "$BIN/vpn-client" ] || { echo "VPN_BIN_DIR holds no vpn-server and vpn-client"; exit 1; }
	[ -c /dev/net/tun ] || { echo "/dev/net/tun is missing"; exit 1; };;
supports)
	case ${1-} in
	psk|rsa|ecdsa|ed25519|ipv6|mobike|fragmentation|cookie|childless|rekey|dns|reconnect) exit 0;;
	*) exit 1;;
	esac;;
start_server) start_daemon server;;
start_client) start_daemon client;;
connect) ctl up "$PROFILE" --timeout "$(opt timeout 20)s" >"$LAB_STATE/up" 2>&1 || { cat "$LAB_STATE/up" >&2; exit 1; };;
disconnect) ctl down >"$LAB_STATE/down" 2>&1;;
stop)
	alive || exit 0
	p=$(daemon_pid); kill "$p"
	for _ in $(seq 50); do alive || exit 0; sleep 0.1; done
	kill -9 "$p" 2>/dev/null; exit 0;;
crash) p=$(daemon_pid); [ -n "$p" ] && kill -9 "$p" 2>/dev/null; exit 0;;
alive) alive;;
sa_count) sessions '[["sa"]]' | wc -l;;
sa_spis) sessions '[(s["spi_i"], s["spi_r"])]';;
child_spis) sessions '[(c["spi_in"], c["spi_out"]) for c in children]';;
sa_endpoints) sessions '[endpoint(s["local"]) + endpoint(s["remote"])]';;
inner_ip) ip netns exec "$LAB_NS" ip -o "-${1:-4}" addr show dev wf0 scope global 2>/dev/null | awk '{sub("/.*", "", $4); print $4; exit}';;
dns_servers) awk '/^nameserver/ {print $2}' "$LAB_STATE/resolv.conf" 2>/dev/null;;
last_error)
	ctl status --json 2>/dev/null | python3 -c '
import json, sys
try:
    e = json.load(sys.stdin).get("last_error")
except ValueError:
    sys.exit()
if e:
    print(e.get("notify") or e["code"])';;
log) cat "$LAB_STATE/log";;
*) echo "unknown verb $verb" >&2; exit 2;;
esac
