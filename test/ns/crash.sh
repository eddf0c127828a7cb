#!/usr/bin/env bash
# crash.sh - either side dies without a word: the other side and the machine recover.
# The gateway comes back and gives the same client the same address; the client comes
# back by itself; a killed client leaves a machine that works again after its next
# start, or after "vpn-client down" without a daemon.
. "$(dirname "$0")/lib.sh"
begin
must "gateway" server_init
must "gateway starts" server_start
must "user" user_add alice
must "quick liveness checks" profile_set alice dpd_delay '"2s"'
must "quick liveness checks" profile_set alice dpd_timeout '"4s"'
must "client starts" client_start
must "connects" vpn_client up alice --timeout 20s
address=$(inner 4)/$(inner 6)
back() { session_is_up && [ "$(inner 4)/$(inner 6)" = "$address" ] && reach_inside; }

must "the gateway ends" end server
must "the gateway starts again" server_start
check "after a restart of the gateway the client is back, with the same addresses" within 60 back

must "SIGKILL" end server KILL
must "the gateway starts again" server_start
check "after SIGKILL of the gateway the client is back, with the same addresses" within 60 back

own_network() {
	[ -z "$(inner 4)$(inner 6)" ] || { echo "an inner address is there"; return 1; }
	reach 192.0.2.1 && reach 203.0.113.1 && equal "$(on laptop cat /etc/resolv.conf)" "nameserver 192.0.2.53"
}
must "SIGKILL" end client KILL
must "the client starts again" client_start
check "after SIGKILL of the client its next start brings the tunnel back" within 40 back
check "down gives the laptop its own network back" vpn_client down
check "and it works" own_network

must "connects" vpn_client up alice --timeout 20s
must "SIGKILL" end client KILL
check "down without a daemon cleans up" vpn_client down
check "and the laptop's network works" own_network
clean() {
	local left
	left=$(on laptop sh -c 'nft list ruleset; ip -4 rule; ip -6 rule' | grep -v -E 'lookup (local|main|default)')
	[ -z "$left" ] || { echo "$left"; return 1; }
}
check "nothing of ours is left" clean

must "the client starts again" client_start
must "connects" vpn_client up alice --timeout 20s
must "SIGKILL" end client KILL
must "SIGKILL" end server KILL
on gateway rm -f /run/wayfarer/server.sock
must "the gateway starts again" server_start
must "the client starts again" client_start
check "after SIGKILL of both the tunnel is back, with the same addresses" within 60 back
check "the client ends in order" end client
check "the laptop's network works" own_network
finish
