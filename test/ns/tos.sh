#!/usr/bin/env bash
# tos.sh - ECN and DSCP: congestion that the network marks outside is seen inside, and
# outer packets carry the DSCP that the settings say.
. "$(dirname "$0")/lib.sh"
begin
# The router marks congestion on what says that it understands, and counts DSCPs.
must "a congested router" on net nft -f - <<'N'
	table inet congested { chain pass { type filter hook forward priority 0;
		udp dport 4500 ip dscp ef counter comment "expedited"
		udp dport 4500 ip dscp cs0 counter comment "plain"
		udp dport 4500 ip ecn ect0 ip ecn set ce
	}; }
N
must "counters inside" on inside nft -f - <<'N'
	table inet seen { chain in { type filter hook input priority 0;
		icmp type echo-request ip ecn ce counter comment "ce"
		icmp type echo-request ip ecn not-ect counter comment "not-ect"
		icmpv6 type echo-request ip6 ecn ce counter comment "ce6"
	}; }
N
counted() { on "$1" nft list ruleset | awk -v what="\"$2\"" '$0 ~ what { for (i = 1; i < NF; i++) if ($i == "packets") print $(i + 1) }'; }
must "gateway" server_init
must "gateway starts" server_start
must "user" user_add alice
must "client starts" client_start
must "connects" vpn_client up alice --timeout 20s
check "packets without ECN pass as they are" on laptop ping -q -c 3 -i 0.1 -W 2 $INSIDE_4
check "and unmarked" equal "$(counted inside not-ect) $(counted inside ce)" "3 0"
check "packets with ECN pass" eval 'on laptop ping -q -c 3 -i 0.1 -W 2 -Q 0x02 $INSIDE_4 && on laptop ping -q -c 2 -i 0.1 -W 2 -Q 0x02 $INSIDE_6'
check "with the router's mark" equal "$(counted inside ce) $(counted inside ce6)" "3 2"
on laptop ping -q -c 3 -i 0.1 -W 2 -Q 0xb8 $INSIDE_4 >/dev/null
check "the DSCP inside is not told outside" equal "$(counted net expedited)" 0
must "disconnects" vpn_client down
must "a DSCP in the profile" profile_set alice dscp '"copy"'
must "connects again" vpn_client up alice --timeout 20s
on laptop ping -q -c 3 -i 0.1 -W 2 -Q 0xb8 $INSIDE_4 >/dev/null
check "but where the profile says so" equal "$(counted net expedited)" 3
finish
