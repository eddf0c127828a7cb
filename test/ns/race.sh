#!/usr/bin/env bash
# race.sh - the first connect when not all is well: addresses of the gateway that are
# dead, one that lets IKE_SA_INIT through only, name servers that do not answer, a cable
# that is cut in the middle, an uplink that comes later. There is one session at the
# gateway in the end.
. "$(dirname "$0")/lib.sh"
begin
must "gateway" server_init
must "gateway starts" server_start
must "user" user_add alice
must "client starts" client_start
must "a filter in the internet" on net nft 'add table inet t; add chain inet t f { type filter hook forward priority 0; }'
drop() { on net nft add rule inet t f "$@" drop; }
pass() { on net nft flush chain inet t f; }
servers() { must "servers in the profile" profile_set alice server "$1"; }

# connects NAME ADDRESS MILLISECONDS: "up" ends with a session over that address in time.
connects() {
	local began out took
	began=$(date +%s%N)
	out=$(vpn_client up alice --timeout 30s 2>&1); local status=$?
	took=$((($(date +%s%N) - began) / 1000000))
	check "$1: connects" equal "$status" 0 || echo "    $out"
	check "$1: by $2" equal "$(client_json remote.address)" "$2"
	check "$1: within $3 ms" test "$took" -le "$3" || echo "    took $took ms"
	check "$1: one session at the gateway" equal_sessions 1
	must "down" vpn_client down
}

# Each dead address costs 250 ms, 4 s is for the programs on a busy machine.
servers "[\"$GATEWAY_6\", \"203.0.113.99\", \"2001:db8:113::99\", \"$GATEWAY_4\"]"
drop ip6 daddr $GATEWAY_6
connects "three dead addresses" $GATEWAY_4 4750

on laptop sh -c "for a in $GATEWAY_6 203.0.113.99 $GATEWAY_4; do echo \$a vpn.example.test; done >>/etc/hosts"
servers '"vpn.example.test"'
connects "a name with a dead family" $GATEWAY_4 4250
# Only IKE_SA_INIT counts: once connected, the address is tested as a standby.
asked() { drop ip6 daddr $GATEWAY_6 udp dport 500 counter; drop ip6 daddr $GATEWAY_6; }
pass; asked
connects "what worked comes first the next time" $GATEWAY_4 4000
# On a busy machine even the first may take longer than the 250 ms after which the next is
# asked, so it may try a few times.
nobody_else() {
	for _ in 1 2 3 4 5; do
		on net nft list table inet t | grep -q "counter packets 0 " && return
		pass; asked
		vpn_client up alice --timeout 30s >/dev/null && vpn_client down >/dev/null || return 1
	done
	on net nft list table inet t; return 1
}
check "what worked comes first the next time: nobody else is asked" nobody_else

pass; drop ip6 daddr $GATEWAY_6 udp dport 4500
servers "[\"$GATEWAY_6\", \"$GATEWAY_4\"]"
connects "port 4500 blocked for IPv6" $GATEWAY_4 9500

pass
servers "[\"nowhere.example.test\", \"$GATEWAY_4\"]"
connects "name servers that do not answer" $GATEWAY_4 4250

servers "\"$GATEWAY_4\""
drop udp dport 4500 counter
counted() { on net nft list chain inet t f | grep -q 'counter packets [1-9]'; }
vpn_client up alice --timeout 30s >"$WORK/up.out" 2>&1 & up=$!
check "in the middle of IKE_AUTH" within 20 counted
uplink_off a; pass; uplink_on b
wait $up; check "moved in the middle of IKE_AUTH: connects" equal $? 0
check "moved in the middle of IKE_AUTH: from the new address" equal "$(client_json local.address)" 192.168.77.10
check "moved in the middle of IKE_AUTH: one session at the gateway" equal_sessions 1
must "down" vpn_client down

uplink_off b
vpn_client up alice --timeout 30s >"$WORK/up.out" 2>&1 & up=$!
# More than the 4 s that are waited for below.
long_pause() { local at; at=$(client_json retry_at) && [ -n "$at" ] && [ $(($(date -d "$at" +%s) - $(date +%s))) -ge 6 ]; }
check "an uplink comes later: a long pause until then" within 25 long_pause
began=$(date +%s%N); uplink_on a
wait $up; status=$?
took=$((($(date +%s%N) - began) / 1000000))
check "an uplink comes later: connects" equal $status 0
check "an uplink comes later: within 4 s" test "$took" -le 4000 || echo "    took $took ms"
must "down" vpn_client down

servers '["203.0.113.99", "2001:db8:113::99"]'
out=$(vpn_client up alice --timeout 2s 2>&1); status=$?
check "nobody there: exit code" equal "$status" 5
check "nobody there: one message tells of all" grep -q 'no answer from 203.0.113.99, 2001:db8:113::99, UDP port 500' <<<"$out"
must "down" vpn_client down
finish
