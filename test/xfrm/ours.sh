#!/usr/bin/env bash
# ours.sh - both programs with the kernel's data path: connect, rekey under traffic, move
# under traffic into a NAT and back, protocol 50, end, and what a crash leaves.
. "$(dirname "$0")/lib.sh"
begin
must "gateway" server_init
must "configuration" with_kernel
gateway_config tunnel 'native_esp = true'
on gateway sed -i -E 's/^# dpd_delay = .*/dpd_delay = "2s"/; s/^# dpd_timeout = .*/dpd_timeout = "15s"/; s/^# away_timeout = .*/away_timeout = "1h"/' /etc/wayfarer/server.toml
must "user" user_add alice
# A state of somebody else, which must be left alone.
foreign() { on gateway ip xfrm state add src 192.0.2.77 dst 192.0.2.78 proto esp spi 0x7777 reqid 77 mode tunnel aead 'rfc4106(gcm(aes))' 0x000102030405060708090a0b0c0d0e0f10111213 128; }
must "a state of another program" foreign
check "the gateway starts" gateway_up || finish
must "client starts" client_start
must "keys are renewed often" profile_set alice rekey_child '"3s"'

check "connects" vpn_client up alice --timeout 30s || finish
check "both say that the kernel carries the tunnel" kind_is xfrm
check "IPv4 and IPv6 through the tunnel" reach_inside
check "reachable from inside" on inside ping -q -n -c 2 -i 0.1 -W 3 "$(inner 4)"
counted() { [ "$(client_json traffic.in_packets)" -ge 4 ] && [ "$(server_json sessions sessions.0.traffic.in_packets)" -ge 4 ]; }
check "packets are counted on both sides" counted

# On the wire there is ESP in UDP and nothing of the inside.
must "watch the wire" tool watch net watch a clear=10.66.0.0/24 clear=10.20.0.0/24
must "probe" tool probe laptop probe $INSIDE_4 "$(inner 4)" every=50ms
must "probe over IPv6" tool probe6 laptop probe $INSIDE_6 "$(inner 6)" every=50ms
before=$(client_json children.0.spi_in)
renewed() { [ "$(client_json children.0.spi_in)" != "$before" ]; }
check "the Child SA is renewed" within 20 renewed
before=$(client_json children.0.spi_in)
check "and again" within 20 renewed
for p in probe probe6; do tool_end $p >/dev/null; done
check "no packet was lost meanwhile" none_lost probe
check "nor over IPv6" none_lost probe6
tool_end watch >/dev/null
check "nothing of the inside is seen on the wire" equal "$(figure watch clear)" 0
replaced_gone() { [ "$(states laptop)" -le 4 ]; }
check "replaced states go" within 10 replaced_gone

# Into a NAT and back, under traffic.
path_from() { [ "$(client_json local.address)" = "$1" ]; }
must "stream" tool stream laptop stream $INSIDE_4 "$(inner 4)"
spi=$(client_json spi_i)
uplink_on b; uplink_off a
check "moves behind a NAT" within 20 path_from 192.168.77.10
check "the tunnel works there" within 10 reach_inside
encapsulated() { [ "$(on gateway ip xfrm state | grep -c "encap type espinudp sport 4[0-9]*")" -ge 2 ]; }
check "the gateway's kernel sends to the NAT" encapsulated
uplink_on a; uplink_off b
check "moves back" within 20 path_from $LAPTOP_4
check "the tunnel works again" within 10 reach_inside
tool_end stream >/dev/null
check "the TCP connection survived both moves" equal "$(figure stream tcp)" ok
check "it is the same session" equal "$(client_json spi_i) $(server_json sessions sessions.#)" "$spi 1"

# The laptop is silent for dpd_timeout.
spared() { on gateway ip xfrm policy | grep -q "action block"; }
uplink_off a
check "nothing is sent to a silent client any more" within 30 spared
uplink_on a
check "it comes back" within 20 reach_inside
check "and is sent to again" not spared

check "disconnects" vpn_client down
check "nothing is left on the laptop" nothing_of_ours laptop
check "nor at the gateway" within 5 nothing_of_ours gateway

# Protocol 50, and from there into a NAT: UDP is switched on.
must "native ESP in the profile" profile_set alice native_esp true
check "connects with native ESP" vpn_client up alice --timeout 30s
check "it is native" equal "$(client_json encapsulation)" esp
check "the tunnel works with native ESP" reach_inside
uplink_on b; uplink_off a
check "moves behind a NAT, where ESP needs UDP" within 20 path_from 192.168.77.10
check "the tunnel works in UDP" within 10 reach_inside
check "it is in UDP" equal "$(client_json encapsulation)" udp
uplink_on a; uplink_off b
check "moves back out of the NAT" within 20 path_from $LAPTOP_4
check "the tunnel works after that" within 10 reach_inside

# A crash of both: the kernel goes on by itself; the next start cleans up.
end client KILL; end server KILL
check "a crash leaves states" [ "$(states laptop)" -ge 2 ]
check "at the gateway too" [ "$(states gateway)" -ge 2 ]
check "cleanup after the crash" vpn_server cleanup
check "cleanup has removed the gateway's own" nothing_of_ours gateway
check "and not another program's" on gateway ip xfrm state get src 192.0.2.77 dst 192.0.2.78 proto esp spi 0x7777
check "the gateway's interface is gone" not on gateway ip link show wfs0
must "gateway starts after the crash" gateway_up
must "client starts after the crash" client_start
check "the client comes back by itself" within 30 session_is_up
check "the tunnel works after the crash" within 10 reach_inside
spis() { on gateway ip xfrm state | grep -o 'spi 0x[0-9a-f]* reqid 14[0-9]*'; }
old=$(spis)
end server KILL
check "a crash leaves states at the gateway" equal "$(spis)" "$old"
must "gateway starts after a crash without cleanup" gateway_up
gone_with_the_crash() { [ -n "$old" ] && ! spis | grep -qF "$old"; } # the client makes new ones at once
check "the gateway has removed them" gone_with_the_crash
check "the client comes back to it" within 30 reach_inside
check "the client ends in order" end client
check "the gateway ends in order" end server
check "nothing is left on the laptop" nothing_of_ours laptop
check "nothing is left at the gateway" nothing_of_ours gateway
gone() { ! ip -n "$PREFIX-laptop" link show wf0 && ! ip -n "$PREFIX-gateway" link show wfs0; }
check "the interfaces are gone" gone
finish
