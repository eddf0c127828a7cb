# lib-events.sh - what can happen to the network of a laptop, with what it costs; sourced
# after lib.sh, by the test moves and by test/bench/roaming.sh.
#
# An event is a function event_NAME, run under a UDP echo each 10 ms and a TCP connection;
# `event NAME` does it, in a new session and with the network as at the beginning. Before that,
# before_NAME may change network or profile, and needs_NAME says what is to be waited for.
# The last change of several calls mark.
SECOND_4=198.51.100.130 # another address of the gateway

# events_up: gateway with two addresses, laptop with a profile, both uplinks.
events_up() {
	begin
	address gateway up0 $SECOND_4/25; address net gw 198.51.100.129/25
	on net nft -f - <<-'N' || { echo "FAIL $TEST: the router takes no filters"; exit 1; }
		table inet events { chain paths { type filter hook forward priority 0; }; }
	N
	must "gateway" server_init
	must "gateway starts" server_start
	must "user" user_add alice
	on laptop sh -c 'mkdir -p /etc/wayfarer && printf "[log]\nlevel = \"debug\"\n" >/etc/wayfarer/client.toml'
	on laptop cp /etc/wayfarer/profiles/alice.toml /run/alice.toml
	must "client starts" client_start
}
# filter RULE..., pass: what the router does with packets between the two.
filter() { on net nft add rule inet events paths "$@"; }
pass() { on net nft flush chain inet events paths; }
counted() { on net nft list chain inet events paths | grep -q 'counter packets [1-9]'; }
# drop_ike: messages of IKE on uplink a, which begin with four zeros on port 4500.
drop_ike() { filter iifname a udp dport 4500 @th,64,32 0 counter drop && filter oifname a udp sport 4500 @th,64,32 0 drop; }
profile_reset() { on laptop cp /run/alice.toml /etc/wayfarer/profiles/alice.toml; }
mark() { kill -USR1 "$(pid_of probe)"; }

# standby_ready [PATTERN]: another path is in hot standby.
standby_ready() { vpn_client paths | grep -q "standby.*${1:-192\.168\.77\.10}.*verified.*operational"; }
identity() { server_json sessions sessions.0.id; server_json sessions sessions.0.user; }
call() { [ "$(type -t "$1")" != function ] || "$1"; }

# tcp_lives: the TCP connection has survived, where there was one.
tcp_lives() { [ "$TCP" = ok ] || [ "$TCP" = unused ]; }

# answering: a path is found.
answering() { on laptop ping -q -n -c 3 -i 0.02 -W 1 -I "$(inner 4)" $INSIDE_4; }
# event NAME: sets GAP (the longest, in ms), BACK (until packets are lost no more, ms after
# the last change), LOST (since then), TCP (unused where there is nothing to connect
# through before), SAME (yes if the gateway has the same session
# still) and WHERE.
event() {
	local name=${1//-/_} before back=0
	GAP=none BACK=none LOST=none TCP=none SAME=no WHERE=
	vpn_client down >/dev/null 2>&1
	pass; profile_reset; network_whole
	call "before_$name"
	[ "$(type -t "measure_$name")" != function ] || { "measure_$name"; return; }
	vpn_client up alice --timeout 20s >"$WORK/up.out" 2>&1 || { cat "$WORK/up.out"; return 1; }
	within 20 call "needs_$name" || { echo "not settled before the event"; vpn_client paths; return 1; }
	before=$(identity)
	tool probe laptop probe $INSIDE_4 "$(inner 4)" && tool stream laptop stream $INSIDE_4 "$(inner 4)" || return 1
	sleep 0.5
	mark
	"event_$name"
	within 20 answering || { echo "no traffic after the event"; back=1; }
	sleep "${AFTER:-0.5}"
	WHERE="$(client_json local.address)>$(client_json remote.address)"
	[ "$(identity)" = "$before" ] && SAME=yes
	tool_end probe >/dev/null; tool_end stream >/dev/null
	GAP=$(figure probe gap_ms) BACK=$(figure probe back_ms) LOST=$(figure probe lost_after) TCP=$(figure stream tcp)
	return $back
}
# network_whole: as it was at the beginning, with both uplinks.
network_whole() {
	uplink_on a 2>/dev/null; uplink_on b 2>/dev/null
	address gateway up0 $GATEWAY_4/24 $GATEWAY_6/64 2>/dev/null
	route gateway default via 203.0.113.1; route gateway default via 2001:db8:113::1
	return 0
}

# --- uplinks ------------------------------------------------------------------
needs_link_switch() { standby_ready; }
event_link_switch() { uplink_off a; }

# The first session is over the lesser uplink, a better one comes.
before_better_link() { uplink_off a; }
needs_better_link() { equal "$(client_json local.address)" 192.168.77.10; }
event_better_link() { uplink_on a; }

# The time counts from the address on, as the system's commands go on meanwhile.
before_break_before_make() { uplink_off b; }
event_break_before_make() {
	uplink_off a; sleep 2
	ip -n "$PREFIX-laptop" link set dev up-b up
	mark
	printf '%s\n' "addr add 192.168.77.10/24 dev up-b" "route replace default via 192.168.77.1 dev up-b metric 200" | ip -n "$PREFIX-laptop" -batch -
}

# An uplink that nobody can rely on: five times off and on, and gone in the end.
needs_flapping() { standby_ready; }
event_flapping() {
	local i
	for i in 1 2 3 4 5; do uplink_off a; sleep 0.15; uplink_on a; sleep 0.25; done
	mark; uplink_off a
}

# The same without another one, and it stays in the end.
before_flapping_alone() { uplink_off b; }
event_flapping_alone() {
	local i
	for i in 1 2 3 4; do uplink_off a; sleep 0.2; uplink_on a; sleep 0.15; done
	uplink_off a; sleep 0.2; mark; uplink_on a
}

# --- paths that die without a word ----------------------------------------------
needs_path_failure() { standby_ready; }
event_path_failure() { filter iifname a drop; filter oifname a drop; }
needs_path_failure_out() { standby_ready; }
event_path_failure_out() { filter iifname a drop; }
needs_path_failure_in() { standby_ready; }
event_path_failure_in() { filter oifname a drop; }
before_path_failure_300ms() { profile_set alice path_failure '"300ms"'; }
needs_path_failure_300ms() { standby_ready; }
event_path_failure_300ms() { event_path_failure; }

# One uplink of one family, and an address of the gateway that is left.
before_second_address() { uplink_off b; ip -n "$PREFIX-laptop" addr del $LAPTOP_6/64 dev up-a; }
event_second_address() { filter ip saddr $LAPTOP_4 ip daddr $GATEWAY_4 drop; filter ip saddr $GATEWAY_4 ip daddr $LAPTOP_4 drop; }

# --- both sides, and exchanges under way -------------------------------------------
gateway_withdraws() { ip -n "$PREFIX-gateway" addr del $GATEWAY_4/24 dev up0; route gateway default via 198.51.100.129; }
needs_server_address() { vpn_client paths | grep -q "$SECOND_4.*verified"; }
event_server_address() { gateway_withdraws; }

# Neither of the two new addresses was known to the other side before, except by name.
before_both_move() { uplink_off b; }
event_both_move() {
	gateway_withdraws; sleep "0.$((RANDOM % 4))"
	uplink_off a; mark; uplink_on b
}

# A renewal begins that gets no answer, and its uplink goes.
before_move_rekey_child() { profile_set alice rekey_child '"3s"'; }
needs_move_rekey_child() { standby_ready; }
event_move_rekey_child() { drop_ike; within 10 counted; mark; uplink_off a; }
before_move_rekey_ike() { profile_set alice rekey_ike '"3s"'; }
needs_move_rekey_ike() { standby_ready; }
event_move_rekey_ike() { event_move_rekey_child; }

# The uplink goes in the middle of IKE_AUTH: its request never arrives, or its answer. BACK is
# how long it takes from then on until traffic flows; SAME is yes when the gateway has one session in the end.
measure_move_ike_auth() { drop_ike; connecting; }
measure_move_ike_auth_answered() { filter oifname a udp sport 4500 @th,64,32 0 counter drop; connecting; }
connecting() {
	local began
	onbg up laptop "$BIN/vpn-client" up alice --timeout 20s
	within 10 counted || { echo "no IKE_AUTH"; return 1; }
	began=$(date +%s%N)
	uplink_off a
	within 20 not running up
	reach $INSIDE_4 || { cat "$WORK/up.log"; return 1; }
	BACK=$((($(date +%s%N) - began) / 1000000)) GAP=$BACK LOST=0
	WHERE="$(client_json local.address)>$(client_json remote.address)" TCP=unused
	within 5 equal_sessions 1 && SAME=yes
}
