#!/usr/bin/env bash
# away.sh - a client from which nothing has come for dpd_timeout is sent next to nothing,
# since its address may be somebody else's by now; once it is heard of, everything.
. "$(dirname "$0")/lib.sh"
begin
must "gateway" server_init
on gateway sed -i -E 's/^# dpd_delay = .*/dpd_delay = "1s"/; s/^# dpd_timeout = .*/dpd_timeout = "3s"/; s/^# away_timeout = .*/away_timeout = "1h"/' /etc/wayfarer/server.toml
must "timers" on gateway grep -q '^away_timeout = "1h"' /etc/wayfarer/server.toml
must "gateway starts" server_start
must "user" user_add alice
must "client starts" client_start
must "connects" vpn_client up alice --timeout 20s
must "the tunnel works" reach_inside
must "the network inside knows the client" on inside ping -q -n -c 2 -i 0.1 -W 3 "$(inner 4)"

must "the laptop is cut off" on net nft 'add table inet t; add chain inet t f { type filter hook forward priority 0; }
	add rule inet t f iifname "a" drop; add rule inet t f oifname "a" counter drop'
sent() { on net nft list chain inet t f | awk '/counter/ {for (i = 1; i < NF; i++) if ($i == "packets") print $(i + 1)}'; }
onbg pings inside ping -q -i 0.05 "$(inner 4)"
# In two seconds: 40 pings, a packet or two where the client is spared, a liveness check.
few() { local before; before=$(sent); sleep 2; [ $(($(sent) - before)) -le 5 ]; }
check "packets go to where it was at first" not few
check "next to none do when it has been silent for dpd_timeout" within 20 few
check "the session is there still" equal_sessions 1

must "the laptop is there again" on net nft flush chain inet t f
check "the tunnel works at once" within 5 reach_inside
everything() { on inside ping -q -n -c 20 -i 0.05 -W 3 "$(inner 4)" | grep -q ' 0% packet loss'; }
check "everything is sent again" everything
finish
