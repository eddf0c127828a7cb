#!/usr/bin/env bash
# triggers.sh - what makes a client look at its paths: an ICMP error (a hint, which makes
# it test, and move only because another path has answered), another default gateway,
# an ICMP error about the gateway while connecting.
. "$(dirname "$0")/lib.sh"
begin
must "gateway" server_init
must "gateway starts" server_start
must "user" user_add alice
on laptop sh -c 'mkdir -p /etc/wayfarer && printf "[log]\nlevel = \"debug\"\n" >/etc/wayfarer/client.toml'
must "client starts" client_start
uplink_on b
must "connects" vpn_client up alice --timeout 20s
must "the tunnel works" reach $INSIDE_4
local_address() { equal "$(client_json local.address)" "$1"; }
check "starts on uplink a" local_address $LAPTOP_4

must "a filter in the internet" on net nft 'add table inet t; add chain inet t f { type filter hook forward priority 0; }'
onbg ping laptop ping -q -i 0.05 -w 30 $INSIDE_4
sleep 1
must "uplink a is cut off with an ICMP error" on net nft add rule inet t f ip saddr $LAPTOP_4 udp dport 4500 reject with icmp type host-unreachable
check "an ICMP error makes the client look, and move" within 10 not local_address $LAPTOP_4
check "the log names the cause" grep -q 'moved to another path.*cause=icmp-error' "$WORK/client.log"
check "it says who said what" grep -q 'ICMP error.*unreachable, says 192.0.2.1' "$WORK/client.log"
must "uplink a works again" on net nft flush chain inet t f
end ping INT

address net a 192.0.2.3/25
before=$(grep -c 'testing all paths' "$WORK/client.log")
route laptop default via 192.0.2.3 dev up-a metric 100
tested() { [ "$(grep -c 'testing all paths.*network-changed' "$WORK/client.log")" -gt "$before" ]; }
check "another default gateway makes the client test its paths" within 10 tested
check "the tunnel works through it" reach $INSIDE_4
must "down" vpn_client down

must "the gateway ends" end server
out=$(vpn_client up alice --timeout 2s 2>&1)
check "ICMP is told when nobody answers" grep -q "ICMP from $GATEWAY_4 says: port unreachable" <<<"$out"
finish
