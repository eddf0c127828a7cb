#!/usr/bin/env bash
# cleartext.sh - no inner packet in clear on the wire, on either side, at any time:
# while the tunnel comes up, carries, renews its keys, reconnects, goes down, and when
# either side is killed, with sockets of programs still open and sending.
. "$(dirname "$0")/lib.sh"
begin
must "gateway" server_init
must "gateway starts" server_start
must "user" user_add alice
must "keys renewed often" profile_set alice rekey_child '"2s"'
must "quick liveness checks" profile_set alice dpd_delay '"2s"'
must "quick liveness checks" profile_set alice dpd_timeout '"4s"'
must "client starts" client_start
# Without masquerading, what the gateway lets out in clear shows inner addresses.
on gateway sed -i 's/^masquerade = true/masquerade = false/' /etc/wayfarer/server.toml
must "reload" vpn_server reload

# The watch stands on both ends of the internet between the two. Inner addresses are
# those of the pools and of the network behind the gateway; far hosts count as well,
# they are to be reached through the tunnel alone.
inner_addresses="clear=$POOL_4 clear=$POOL_6 clear=10.20.0.0/24 clear=fd00:20::/64 clear=$FAR_4/32 clear=$FAR_6/128"
# phase NAME: nothing was in clear since the last one; begins the next.
phase() {
	local d
	for d in a gw; do
		tool_end watch-$d >"$WORK/watch-$d.figures"
		check "$1: nothing in clear at $([ $d = a ] && echo the laptop || echo the gateway)" quiet $d
	done
	watch_begin
}
quiet() { equal "$(figure "watch-$1" clear)" 0 || { grep 'in clear' "$WORK/watch-$1.log"; return 1; }; }
watch_begin() { local d; for d in a gw; do must "watch" tool watch-$d net watch $d $inner_addresses; done; }

# A watch that sees nothing proves nothing: first something in clear on purpose.
must "watch" tool watch-a net watch a $inner_addresses
on laptop ping -q -n -c 1 -W 1 $FAR_4 >/dev/null 2>&1
tool_end watch-a >/dev/null
check "the watch finds a packet in clear" equal "$(figure watch-a clear)" 1

watch_begin
must "connects" vpn_client up alice --timeout 20s
a4=$(inner 4) a6=$(inner 6)
must "reaches" reach_inside
# Programs with open sockets, some bound to the device of the uplink.
must "sockets" tool hold4 laptop hold "$a4" $FAR_4 up-a
must "sockets" tool hold6 laptop hold "$a6" $FAR_6 up-a
must "sockets" tool hold4in laptop hold "$a4" $INSIDE_4
must "sockets" tool hold6in laptop hold "$a6" $INSIDE_6
sleep 0.5
phase "connect"
sleep 5
phase "traffic and renewal of keys"
must "disconnects" vpn_client down
sleep 1
phase "disconnect"
must "connects again" vpn_client up alice --timeout 20s
sleep 0.5
phase "reconnect"
# As the package does it: the machine stays closed, and the next run takes over.
on laptop touch /run/wayfarer/client.successor
must "the client ends for an upgrade" end client
check "an upgrade: far hosts are not reached past the tunnel" not reach $FAR_4
check "an upgrade: the file that announces it is gone" on laptop test ! -e /run/wayfarer/client.successor
phase "end of the client for an upgrade"
must "the new client starts" client_start
check "an upgrade: the tunnel is back" within 40 session_is_up
sleep 0.5
phase "start of the new client"
must "SIGKILL" end client KILL
sleep 1.5
phase "SIGKILL of the client"
must "the client starts again" client_start
must "it is back" within 40 session_is_up
sleep 0.5
phase "next start of the client"
must "SIGKILL" end server KILL
sleep 1.5
phase "SIGKILL of the gateway"
# From inside to the client, while there is no gateway.
on inside ping -q -n -c 3 -i 0.2 -W 1 "$a4" >/dev/null 2>&1; on inside ping -q -n -c 3 -i 0.2 -W 1 "$a6" >/dev/null 2>&1
phase "packets for the client while the gateway is dead"
must "the gateway starts again" server_start
must "the client is back" within 60 session_is_up
on inside ping -q -n -c 3 -i 0.2 -W 1 10.66.0.77 >/dev/null 2>&1; on inside ping -q -n -c 3 -i 0.2 -W 1 fd66::77 >/dev/null 2>&1
phase "packets for free addresses of the pool"
# The laptop changes its uplink under the tunnel.
uplink_on b; sleep 1; uplink_off a; sleep 2; uplink_on a; sleep 1; uplink_off b; sleep 1
phase "changes of the uplink"
must "the client ends" end client
sleep 1
phase "end of the client"
must "the gateway ends" end server
on inside ping -q -n -c 3 -i 0.2 -W 1 "$a4" >/dev/null 2>&1; on inside ping -q -n -c 3 -i 0.2 -W 1 10.66.0.77 >/dev/null 2>&1; on inside ping -q -n -c 3 -i 0.2 -W 1 fd66::77 >/dev/null 2>&1
phase "packets for clients after the end of the gateway"
finish
