#!/usr/bin/env bash
# roam.sh - uplinks go and paths die under a TCP connection and a packet each 10 ms: the
# session moves, is the same afterwards, and both daemons tell of it. The bounds leave
# room for a loaded machine; what is measured on an idle one is in docs/roaming.md.
. "$(dirname "$0")/lib.sh"
LIMIT=2000 # ms without an answer that a move may cost here
begin
uplink_on b
must "gateway" server_init
must "gateway starts" server_start
must "user" user_add alice
must "client starts" client_start
must "connects" vpn_client up alice --timeout 20s
must "traffic" reach_inside
spis() { client_json spi_i; client_json spi_r; server_json sessions sessions.0.spi_i; }
before=$(spis)
on_path() { equal "$(client_json local.address) > $(client_json remote.address)" "$1"; }
standby() { vpn_client paths | grep -q 'standby.*192\.168\.77\.10.*verified.*operational'; }
check "the other uplink is in hot standby" within 15 standby
# nat_is ADDRESS yes|no: what all pairs of a local address say.
nat_is() { vpn_client paths | awk -v a="$1" -v n="$2" 'index($0, a) {seen = 1; if (!index($0, " " n " ")) bad = 1} END {exit bad || !seen}'; }
check "nothing has moved so far" not grep -q 'moved to another path' "$WORK/client.log"
check "only the path behind the NAT counts as such" within 15 nat_is 192.168.77.10 yes
check "and the direct one does not" within 15 nat_is "$LAPTOP_4:" no

# move PATH COMMAND...: an event under traffic; sets gap (ms) and tcp.
gap=none tcp=none
move() {
	local path=$1; shift
	must "probe" tool probe laptop probe $INSIDE_4 "$(inner 4)"
	must "stream" tool stream laptop stream $INSIDE_4 "$(inner 4)"
	sleep 1
	"$@"
	check "and the session goes to $path" within 15 on_path "$path"
	sleep 1.5
	tool_end probe >/dev/null; tool_end stream >/dev/null
	gap=$(figure probe gap_ms) tcp=$(figure stream tcp)
	echo "    gap $gap ms, $(figure probe lost) of $(figure probe sent) packets lost, TCP $tcp"
}
survived() { echo "gap $gap ms, TCP $tcp"; [ "$tcp" = ok ] && [ "${gap%.*}" -lt $LIMIT ]; }
told() { vpn_client status | grep -q "last move: .*because of $1, [0-9]* ms without a path"; }

move "192.168.77.10 > $GATEWAY_4" uplink_off a
check "the uplink goes: TCP survives, the gap is short" survived
check "status tells why and how long" within 5 told local-lost
was_at() { server_json sessions sessions.0.moves.0.from | grep -q "^$LAPTOP_4:"; }
check "the gateway tells where the client was" was_at
check "both sides know of the NAT now" equal "$(client_json nat.local) $(server_json sessions sessions.0.nat.peer)" "true true"

uplink_on a
check "back on the better uplink" within 30 on_path "$LAPTOP_4 > $GATEWAY_4"
check "the NAT is forgotten" within 5 equal "$(client_json nat.local) $(server_json sessions sessions.0.nat.peer)" "false false"
check "the other uplink is in standby again" within 15 standby

# The path dies without a word: the router drops what goes between the two addresses.
blackhole() {
	on net nft -f - <<-N
		table ip dead { chain forward { type filter hook forward priority 0;
			ip saddr $LAPTOP_4 ip daddr $GATEWAY_4 drop
			ip saddr $GATEWAY_4 ip daddr $LAPTOP_4 drop
		}; }
		table ip6 dead { chain forward { type filter hook forward priority 0; ip6 saddr $LAPTOP_6 drop; }; }
	N
}
move "192.168.77.10 > $GATEWAY_4" blackhole
check "the path dies silently: TCP survives, the gap is short" survived
check "status tells why and how long" within 5 told traffic-unanswered
check "it is the same session all the time" equal "$(spis)" "$before"
lines() { local n; n=$(grep -c 'moved to another path' "$WORK/client.log"); echo "$n lines"; [ "$n" -ge 3 ] && [ "$n" = "$(grep -c 'from=.* to=.* cause=.* gap_ms=' "$WORK/client.log")" ]; }
check "the log has a line for each handover" lines
finish
