#!/usr/bin/env bash
# nat.sh - from behind a NAT: the gateway sees the mapped port, the tunnel carries both
# families and stays reachable from inside, keys are renewed under traffic without a
# lost packet.
. "$(dirname "$0")/lib.sh"
begin
uplink_on b; uplink_off a
must "gateway" server_init
must "gateway starts" server_start
must "user" user_add alice
for key in rekey_child rekey_ike; do must "$key in the profile" profile_set alice $key '"3s"'; done
must "client starts" client_start
check "connects from behind a NAT" vpn_client up alice --timeout 20s || finish

seen=$(server_json sessions sessions.0.remote)
mapped() { case $seen in $NAT_4:40[0-9][0-9][0-9]) ;; *) echo "the gateway sees $seen"; return 1;; esac; }
check "the gateway sees the NAT's address and port" mapped
check "both sides know of the NAT" equal "$(client_json nat.local) $(server_json sessions sessions.0.nat.peer)" "true true"
check "IPv4 and IPv6 through the tunnel" reach_inside
check "reachable from inside" on inside ping -q -n -c 2 -i 0.1 -W 3 "$(inner 4)"

# Keys are renewed several times while packets and a TCP stream run both ways.
spis() { client_json spi_i; client_json children.0.spi_in; }
before=$(spis)
must "probe" tool probe laptop probe $INSIDE_4 "$(inner 4)"
must "probe over IPv6" tool probe6 laptop probe $INSIDE_6 "$(inner 6)"
must "stream" tool stream laptop stream $INSIDE_4 "$(inner 4)"
renewed() { local n; n=$(spis); [ "$(head -1 <<<"$n")" != "$(head -1 <<<"$before")" ] && [ "$(tail -1 <<<"$n")" != "$(tail -1 <<<"$before")" ]; }
check "IKE SA and Child SA are renewed" within 15 renewed
before=$(spis)
check "and again" within 15 renewed
for p in probe probe6 stream; do tool_end $p >"$WORK/$p.figures"; done
check "no packet was lost meanwhile" equal "$(figure probe lost) of $(figure probe sent), $(figure probe6 lost) of $(figure probe6 sent)" "0 of $(figure probe sent), 0 of $(figure probe6 sent)"
check "the TCP connection survived" equal "$(figure stream tcp)" ok
check "there is one session still" equal_sessions 1
finish
