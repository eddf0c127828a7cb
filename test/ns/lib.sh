# lib.sh - machines in network namespaces for the tests and the demonstration; sourced.
#
# A machine is a namespace of its own for network, mounts and host name, with a private
# /run, /etc and /var/lib. So the programs run with their default paths as on a real
# machine, and the host is left alone. Names begin with a prefix of this process, several
# runs may go on at once.
#
#        203.0.113.0/24                        10.20.0.0/24, fd00:20::/64
#        2001:db8:113::/64 +---------+ in0                  +--------+
#      +---------- up0 .10 | gateway | .1 ------------ .2   | inside |  echo and file server
#      | .1                +---------+                      +--------+  198.51.100.80,
#   +-----+                                                             2001:db8:100::80
#   | net |  the internet: a router; hostile senders sit here
#   +-----+
#      | .1  192.0.2.0/25, 2001:db8:a::/64
#      +---------- up-a .10 +--------+
#      |                    | laptop |
#      |           up-b .10 +--------+
#      |                | 192.168.77.0/24
#      +--- .130 nat .1 +   192.0.2.128/25; NAPT to .130, ports 40000-40999
#
# The laptop starts with uplink a. BIN holds the programs, NSTOOL the test tool.
set -u
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BIN=${BIN:-$ROOT/bin}
PREFIX=${PREFIX:-wf$$}
MACHINES="gateway inside net nat laptop"
GATEWAY_4=203.0.113.10 GATEWAY_6=2001:db8:113::10
LAPTOP_4=192.0.2.10 LAPTOP_6=2001:db8:a::10
NAT_4=192.0.2.130
INSIDE_4=10.20.0.2 INSIDE_6=fd00:20::2
FAR_4=198.51.100.80 FAR_6=2001:db8:100::80 # hosts of the internet that only the gateway reaches
POOL_4=10.66.0.0/24 POOL_6=fd66::/112

# --- machines -----------------------------------------------------------------
# on MACHINE COMMAND...: run it there, in its namespaces, in place of this shell's
# child: the process id of `on ... &` is that of the command.
on() {
	local pid; read -r pid <"$WORK/$1.machine"; shift
	exec_in() { exec nsenter --target "$pid" --mount --net --uts --wd=/ -- "$@"; }
	(exec_in "$@")
}
# onbg NAME MACHINE COMMAND...: run it there in the background; output in NAME.log,
# process id in NAME.pid.
onbg() {
	local name=$1 pid; read -r pid <"$WORK/$2.machine"; shift 2
	nsenter --target "$pid" --mount --net --uts --wd=/ -- "$@" </dev/null >"$WORK/$name.log" 2>&1 &
	echo $! >"$WORK/$name.pid"
	disown
}
pid_of() { cat "$WORK/$1.pid" 2>/dev/null; }
running() { local p; p=$(pid_of "$1"); [ -n "$p" ] && kill -0 "$p" 2>/dev/null; }
# pause: 50 ms, without a process.
exec {NEVER}<> <(:)
pause() { read -rt 0.05 -u "$NEVER" || :; }
# end NAME [SIGNAL]: end a background command and wait for it, at most 8 s.
end() {
	local p i; p=$(pid_of "$1"); [ -n "$p" ] || return 0
	kill "-${2:-TERM}" "$p" 2>/dev/null
	for i in $(seq 160); do
		kill -0 "$p" 2>/dev/null || { rm -f "$WORK/$1.pid"; return 0; }
		pause
	done
	kill -KILL "$p" 2>/dev/null; rm -f "$WORK/$1.pid"
	echo "$1 did not end within 8 s" >&2
	return 1
}
# tool NAME MACHINE SUBCOMMAND...: run a subcommand of the test tool in the background
# and wait until it is ready. tool_end NAME prints its figures.
tool() {
	local name=$1 machine=$2; shift 2
	onbg "$name" "$machine" "$NSTOOL" "$@"
	within 10 grep -q '^ready' "$WORK/$name.log" || { echo "nstool $* is not ready: $(cat "$WORK/$name.log")" >&2; return 1; }
}
tool_end() { end "$1"; grep -v '^ready' "$WORK/$1.log"; }
# figure NAME KEY: a figure that a finished tool has printed as KEY=value.
figure() { grep -oE "(^| )$2=[^ ]*" "$WORK/$1.log" | tail -1 | cut -d= -f2; }

# within SECONDS COMMAND...: try it again and again until it succeeds. A slow machine
# gets SLOW times as long.
within() {
	local until=$((SECONDS + $1 * ${SLOW:-1})); shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $until ] || return 1
		pause
	done
}

machine() {
	local name=$PREFIX-$1
	ip netns add "$name" || return 1
	# /etc is a copy, so that what a program does to /etc/resolv.conf is real and private.
	ip netns exec "$name" unshare --mount --uts --propagation private bash -c '
		hostname "$1" && mount -t tmpfs none /run &&
		mkdir /run/etc /run/wayfarer && cp -a /etc/. /run/etc/ 2>/dev/null; mount --bind /run/etc /etc &&
		rm -rf /etc/resolv.conf /etc/wayfarer && echo "nameserver 192.0.2.53" >/etc/resolv.conf &&
		mount -t tmpfs none /var/lib || exit 1
		ip link set lo up
		for k in all default; do
			echo 0 >/proc/sys/net/ipv6/conf/$k/accept_ra
			echo 0 >/proc/sys/net/ipv6/conf/$k/accept_dad
		done
		: >"$2"; exec sleep infinity' sh "$1" "$WORK/$1.up" </dev/null >"$WORK/$1.log" 2>&1 &
	echo $! >"$WORK/$1.machine"; disown
}
machine_is_up() { within 10 test -e "$WORK/$1.up" || { cat "$WORK/$1.log" >&2; return 1; }; }
# links_up DEVICE..., addresses DEVICE ADDRESS/LENGTH..., routes ROUTE...: lines of the
# batch mode of ip.
addresses() {
	local d=$1 a; shift
	for a; do case $a in *:*) echo "addr add $a dev $d nodad";; *) echo "addr add $a dev $d";; esac; done
}
links_up() { printf 'link set dev %s up\n' "$@"; }
routes() { printf 'route replace %s\n' "$@"; }
# configure MACHINE: do what these lines on standard input say, in one process; where
# processes are dear the network is up much earlier.
configure() { ip -n "$PREFIX-$1" -batch -; }
address() { local m=$1; shift; addresses "$@" | configure "$m"; }
route() { local m=$1; shift; routes "$*" | configure "$m"; }
# cables MACHINE1 DEVICE1 MACHINE2 DEVICE2...
cables() {
	while [ $# -gt 0 ]; do
		echo "link add $2 netns $PREFIX-$1 type veth peer name $4 netns $PREFIX-$3"
		shift 4
	done | ip -batch -
}

# network_up: all machines of the picture.
network_up() {
	WORK=$(mktemp -d) || return 1
	trap network_down EXIT
	trap 'exit 130' INT; trap 'exit 143' TERM HUP
	local m
	for m in $MACHINES; do machine "$m" || return 1; done
	for m in $MACHINES; do machine_is_up "$m" || return 1; done
	for m in net nat; do on $m sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'; done
	cables gateway up0 net gw gateway in0 inside in0 laptop up-a net a nat pub net nat laptop up-b nat lan &&
		{ links_up gw a nat; addresses gw 203.0.113.1/24 2001:db8:113::1/64; addresses a 192.0.2.1/25 2001:db8:a::1/64; addresses nat 192.0.2.129/25; } | configure net &&
		{ links_up up0 in0; addresses up0 $GATEWAY_4/24 $GATEWAY_6/64; addresses in0 10.20.0.1/24 fd00:20::1/64
			routes "default via 203.0.113.1" "default via 2001:db8:113::1" "$FAR_4 via $INSIDE_4" "$FAR_6 via $INSIDE_6"; } | configure gateway &&
		{ links_up in0; addresses in0 $INSIDE_4/24 $INSIDE_6/64; addresses lo $FAR_4/32 $FAR_6/128
			routes "default via 10.20.0.1" "default via fd00:20::1"; } | configure inside &&
		{ links_up pub lan; addresses pub $NAT_4/25; addresses lan 192.168.77.1/24; routes "default via 192.0.2.129"; } | configure nat || return 1
	napt || return 1
	uplink_on a
	tool inside inside serve
}
# napt: the translation, with the older tool on kernels without nf_tables.
napt() {
	on nat nft -f - <<-'N' 2>/dev/null && return
		table ip nat { chain post { type nat hook postrouting priority 100;
			oifname "pub" meta l4proto { tcp, udp } snat to 192.0.2.130:40000-40999
			oifname "pub" snat to 192.0.2.130
		}; }
	N
	local p
	for p in tcp udp; do
		on nat iptables-legacy -t nat -A POSTROUTING -o pub -p $p -j SNAT --to-source $NAT_4:40000-40999 || return 1
	done
	on nat iptables-legacy -t nat -A POSTROUTING -o pub -j SNAT --to-source $NAT_4
}
# uplink_on a|b, uplink_off a|b: as a network manager does it. a has the better metric.
uplink_on() {
	case $1 in
	a) { links_up up-a; addresses up-a $LAPTOP_4/25 $LAPTOP_6/64
		routes "default via 192.0.2.1 dev up-a metric 100" "default via 2001:db8:a::1 dev up-a metric 100"; } | configure laptop;;
	b) { links_up up-b; addresses up-b 192.168.77.10/24; routes "default via 192.168.77.1 dev up-b metric 200"; } | configure laptop;;
	esac
}
uplink_off() { printf '%s\n' "addr flush dev up-$1" "link set dev up-$1 down" | configure laptop; }
# network_down: end what runs in the machines and remove them, and SCRATCH if set.
network_down() {
	local m p
	trap - EXIT; trap '' INT TERM HUP
	for p in client server; do end $p >/dev/null 2>&1; done
	for m in $MACHINES; do
		for p in $(ip netns pids "$PREFIX-$m" 2>/dev/null); do kill -KILL "$p" 2>/dev/null; done
	done
	for m in $MACHINES; do ip netns del "$PREFIX-$m" 2>/dev/null; done
	[ -n "${KEEP:-}" ] && echo "logs are in $WORK" || rm -rf "$WORK"
	[ -z "${SCRATCH:-}" ] || rm -rf "$SCRATCH"
}

# --- the products -------------------------------------------------------------
vpn_server() { on gateway "$BIN/vpn-server" "$@"; }
vpn_client() { on laptop "$BIN/vpn-client" "$@"; }
# server_init [OPTION...]: a gateway with its defaults, except for known networks.
server_init() {
	vpn_server init --name vpn.example.test --address $GATEWAY_4 --pool4 $POOL_4 --pool6 $POOL_6 --dns $INSIDE_4 --dns $INSIDE_6 "$@" >"$WORK/init.out"
}
server_start() { onbg server gateway "$BIN/vpn-server" run; within 15 vpn_server status || { tail -20 "$WORK/server.log" >&2; return 1; }; }
client_start() { onbg client laptop "$BIN/vpn-client" run; within 15 vpn_client status || { tail -20 "$WORK/client.log" >&2; return 1; }; }
# user_add NAME [OPTION...]: a user, whose profile the laptop takes in.
user_add() {
	vpn_server user add "$@" >/dev/null && vpn_server profile export "$1" >"$WORK/$1.toml" && vpn_client import --force "$WORK/$1.toml" >/dev/null
}
# profile_set NAME KEY VALUE: change a key of an imported profile, in its table.
profile_set() {
	local file=/etc/wayfarer/profiles/$1.toml
	on laptop sed -i -E "s|^(# )?$2 = .*|$2 = $3|" "$file"
	on laptop grep -q "^$2 = " "$file" || { echo "profile $1 has no key $2" >&2; return 1; }
}
server_json() { vpn_server "$1" --json | "$NSTOOL" field "${@:2}"; }
client_json() { vpn_client status --json | "$NSTOOL" field "$@"; }
inner() { ip -n "$PREFIX-laptop" -o "-$1" addr show dev wf0 scope global 2>/dev/null | awk '{sub("/.*", "", $4); print $4; exit}'; }
# reach ADDRESS: does it answer from the laptop?
reach() { on laptop ping -q -n -c 2 -i 0.1 -W 3 "$1" >/dev/null 2>&1; }
reach_inside() { reach $INSIDE_4 && reach $INSIDE_6; }
equal_sessions() { equal "$(server_json sessions sessions.#)" "$1"; }
session_is_up() { [ "$(client_json connected)" = true ] && [ "$(server_json sessions sessions.#)" = "${1:-1}" ]; }

# begin: the network, or the end of the test.
begin() {
	network_up 2>"${ERRORS:=$(mktemp)}" && { rm -f "$ERRORS"; return; }
	sed 's/^/    /' "$ERRORS"; rm -f "$ERRORS"
	echo "FAIL $TEST: the network of the test"; exit 1
}

# --- verdicts -----------------------------------------------------------------
FAILED=0
# check NAME COMMAND...: PASS if it succeeds, FAIL with what it said otherwise.
check() {
	local name=$1 out; shift
	if out=$("$@" 2>&1); then echo "PASS $TEST: $name"; return 0; fi
	FAILED=1
	[ -z "$out" ] || printf '%s\n' "$out" | tail -15 | sed 's/^/    /'
	echo "FAIL $TEST: $name"
	return 1
}
# must NAME COMMAND...: what everything after depends on; silent when it succeeds.
must() {
	local out; out=$("${@:2}" 2>&1) && return 0
	printf '%s\n' "$out" | tail -15 | sed 's/^/    /'
	echo "FAIL $TEST: $1"
	show_logs
	exit 1
}
show_logs() {
	local p
	for p in server client; do
		[ -s "$WORK/$p.log" ] && { echo "    --- end of the log of vpn-$p"; tail -15 "$WORK/$p.log" | cut -c1-300 | sed 's/^/    /'; }
	done
}
# finish: the last line of every test.
finish() { [ "$FAILED" = 0 ] || show_logs; exit "$FAILED"; }
equal() { [ "$1" = "$2" ] || { echo "is \"$1\" instead of \"$2\""; return 1; }; }
not() { ! "$@"; }
