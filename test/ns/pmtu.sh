#!/usr/bin/env bash
# pmtu.sh - a path that carries less than Ethernet, drops fragments and tells nobody:
# found out in each direction by itself, and while connections are under way.
. "$(dirname "$0")/lib.sh"
begin
# The router keeps its ICMP errors to itself; fragments arrive nowhere.
must "a silent router" on net nft -f - <<'N'
	table inet quiet { chain out { type filter hook output priority 0;
		icmp type destination-unreachable icmp code frag-needed drop
		icmpv6 type packet-too-big drop
	}; }
N
for m in gateway laptop; do must "no fragments" on $m nft -f - <<'N'
	table inet whole { chain in { type filter hook prerouting priority -450;
		ip frag-off & 0x3fff != 0 counter drop
		exthdr frag exists counter drop
	}; }
N
done
# carries to|from MTU: what the path carries to the gateway, or from it.
carries() {
	case $1 in
	to) route net $GATEWAY_4/32 dev gw mtu lock "$2"; route net $GATEWAY_6/128 dev gw mtu lock "$2";;
	from) route net $LAPTOP_4/32 dev a mtu lock "$2"; route net $LAPTOP_6/128 dev a mtu lock "$2";;
	esac
}
found() { equal "$(client_json path_mtu) $(server_json sessions sessions.0.path_mtu)" "$*"; }
# survives NAME: an echo of large records over TCP goes on, without a long pause.
survives() {
	tool_end "$1" >"$WORK/$1.figures"
	[ "$(figure "$1" tcp)" = ok ] && [ "$(figure "$1" slowest_ms)" -lt "$2" ] || { cat "$WORK/$1.log"; return 1; }
}

must "gateway" server_init
must "gateway starts" server_start
must "user" user_add alice
must "client starts" client_start
must "connects" vpn_client up alice --timeout 20s
check "an ordinary path is found to carry 1500" within 5 found 1500 1500
must "a connection" tool wide laptop stream $INSIDE_4 "$(inner 4)" size=60000
must "a connection over IPv6" tool wide6 laptop stream $INSIDE_6 "$(inner 6)" size=60000
sleep 1
carries to 1400; carries from 1400
check "both directions become 1400, found out" within 10 found 1400 1400
check "a connection of before goes on" survives wide 5000
check "and one over IPv6" survives wide6 5000

must "a connection" tool up laptop stream $INSIDE_4 "$(inner 4)" size=60000
carries to 1280
check "to the gateway only 1280, found out" within 20 found 1280 1400
check "a connection of before goes on" survives up 17000
must "a connection" tool down laptop stream $INSIDE_4 "$(inner 4)" size=60000
carries to 1400; carries from 1280
check "from the gateway only 1280, found out" within 20 found 1280 1280
check "a connection of before goes on" survives down 17000
fragments() { local m; for m in gateway laptop; do on $m nft list table inet whole; done | awk '{ for (i = 1; i < NF; i++) if ($i == "packets") n += $(i + 1) } END { print n }'; }
before=$(fragments)
must "a new connection over IPv6" tool new6 laptop stream $INSIDE_6 "$(inner 6)" size=60000
sleep 1
whole() { survives new6 500 && equal "$(fragments) fragments" "$before fragments"; }
check "a new connection over IPv6 needs no fragments" whole

# What does not fit and must not be fragmented is answered; 1280 leaves 1218 inside.
refused() { on "$1" ping -c 1 -W 2 -M do -s "$4" "$2" 2>&1 | tee "$WORK/ping" | grep -qi "$3" || { cat "$WORK/ping"; return 1; }; }
check "the laptop is told of too large IPv4" refused laptop $INSIDE_4 'mtu *[=:] *1218' 1320
check "the laptop is told of too large IPv6" refused laptop $INSIDE_6 'mtu *[=:] *1280' 1270
check "a host behind the gateway is told of too large IPv4" refused inside "$(inner 4)" 'mtu *[=:] *1218' 1320
check "a host behind the gateway is told of too large IPv6" refused inside "$(inner 6)" 'mtu *[=:] *1280' 1270
fits() { on "$1" ping -c 2 -i 0.2 -W 2 -M do -s 1188 "$2"; }
check "what fits goes through, both ways" eval 'fits laptop $INSIDE_4 && fits inside "$(inner 4)"'
shown() { vpn_client paths | tee "$WORK/paths" | grep -q ' 1280 ' && vpn_client status | grep -q '^path MTU: *1280' || { cat "$WORK/paths"; vpn_client status; return 1; }; }
check "paths and status show it" shown
finish
