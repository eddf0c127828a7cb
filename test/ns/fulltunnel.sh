#!/usr/bin/env bash
# fulltunnel.sh - everything through the tunnel: the internet appears behind the gateway,
# the local network stays reachable if wanted, a download arrives whole, and the default
# routes are as before afterwards.
. "$(dirname "$0")/lib.sh"
begin
must "gateway" server_init
must "gateway starts" server_start
must "user" user_add alice
must "client starts" client_start
# Only the gateway has a way to these.
check "the far hosts are out of reach without the tunnel" not reach $FAR_4
before=$(on laptop sh -c 'ip route; ip -6 route')
check "connects" vpn_client up alice --timeout 20s || finish
check "IPv4 internet through the tunnel" reach $FAR_4
check "IPv6 internet through the tunnel" reach $FAR_6
check "the gateway itself is reachable inside" reach 10.66.0.1
check "the local network is reachable" reach 192.0.2.1
check "a download arrives whole" on laptop "$NSTOOL" fetch "http://$FAR_4:8080/?size=50000000"
check "and over IPv6" on laptop "$NSTOOL" fetch "http://[$FAR_6]:8080/?size=10000000"
far_sees() { equal "$(on laptop "$NSTOOL" source $FAR_4)" 10.20.0.1; }
check "far hosts see the gateway's address" far_sees
check "pings as large as the tunnel's packets pass" on laptop ping -q -n -c 2 -i 0.2 -W 3 -s 1300 $FAR_4
check "larger ones are cut in pieces and pass" on laptop ping -q -n -c 2 -i 0.2 -W 3 -s 4000 $FAR_4
check "disconnects" vpn_client down
check "the routes are as before" equal "$(on laptop sh -c 'ip route; ip -6 route')" "$before"
check "the far hosts are out of reach again" not reach $FAR_4
check "the local network is reachable still" reach 192.0.2.1
finish
