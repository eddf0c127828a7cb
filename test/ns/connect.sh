#!/usr/bin/env bash
# connect.sh - what README promises: make a gateway, add users, hand out profiles,
# connect with certificates and pre-shared keys over IPv4 and IPv6, DNS, split tunnel,
# and leave the machine as it was.
. "$(dirname "$0")/lib.sh"
begin

# state: all of the laptop's network that a tunnel changes.
state() {
	on laptop sh -c 'ip -4 rule; ip -6 rule; ip -o addr show scope global | grep -v "^[0-9]*: up-"; ip route show table all | grep -v " dev lo" | sort
		ip -6 route show table all | grep -v " dev lo" | sort; nft list ruleset; cat /etc/resolv.conf'
}
unchanged() { diff "$WORK/before" <(state); }
# guarded: what may remain while the daemon runs is the guard of the address that was used.
works_without() { reach 192.0.2.1 && not ip -n "$PREFIX-laptop" link show wf0 && equal "$(on laptop cat /etc/resolv.conf)" "nameserver 192.0.2.53"; }

check "a gateway is made by one command" server_init
check "its configuration is good" vpn_server check
must "gateway starts" server_start
check "a user with a certificate" user_add alice
check "a user with a pre-shared key" user_add bob --psk
state >"$WORK/before"
must "client starts" client_start

for user in alice bob; do
	must "split tunnel in the profile" profile_set $user routes '["10.20.0.0/24", "fd00:20::/64"]'
	check "$user connects" vpn_client up $user --timeout 20s || { finish; }
	check "$user reaches IPv4 and IPv6 behind the gateway" reach_inside
	check "$user has the gateway's name servers" equal "$(on laptop grep -c -E "^nameserver ($INSIDE_4|$INSIDE_6)" /etc/resolv.conf)" 2
	check "$user appears in the gateway's sessions" equal "$(server_json sessions sessions.0.identity)" "$user@vpn.example.test"
	check "$user: both sides agree on the IKE SA" equal "$(client_json spi_i) $(client_json spi_r)" "$(server_json sessions sessions.0.spi_i) $(server_json sessions sessions.0.spi_r)"
	check "$user: what is not in the split tunnel goes past it" reach 192.0.2.1
	check "$user disconnects" vpn_client down
	check "$user: the gateway has no session any more" within 5 equal_sessions 0
	check "$user: the laptop has its own network and DNS back" works_without
done

# Without the daemon, in a terminal that is closed.
must "the daemon ends" end client
foreground() { onbg client laptop "$BIN/vpn-client" up --foreground bob; within 20 session_is_up; }
check "connects in the foreground" foreground
check "the closing of its terminal ends it" end client HUP
check "and the laptop has its own network" works_without
must "client starts again" client_start

must "IPv6 gateway in the profile" profile_set alice server "\"$GATEWAY_6\""
check "connects over IPv6" vpn_client up alice --timeout 20s
check "the path is IPv6" equal "$(client_json remote.address)" $GATEWAY_6
check "reaches IPv4 and IPv6 over IPv6" reach_inside
check "the client ends in order" end client
check "nothing is left on the laptop" unchanged
check "the gateway ends in order" end server
finish
