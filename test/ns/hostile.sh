#!/usr/bin/env bash
# hostile.sh - what strangers, and those who can forge addresses and listen, send to a
# gateway and to a client with a session up: no effect on the session, nothing sent to
# the forged addresses, memory flat. BLAST sets the number of datagrams.
. "$(dirname "$0")/lib.sh"
BLAST=${BLAST:-100000}
SPOOFED=198.18.5.5 # whom the garbage claims to come from
begin
must "gateway" server_init
must "gateway starts" server_start
must "user" user_add alice
must "client starts" client_start
must "connects" vpn_client up alice --timeout 20s
route net 198.18.0.0/15 dev lo # the spoofed sources, so that answers to them are seen on gw
rss() { awk '/^VmRSS/ {print $2}' "/proc/$(pid_of "$1")/status"; }
spii=$(client_json spi_i) spir=$(client_json spi_r)
same_session() {
	equal "$(client_json spi_i) $(client_json spi_r)" "$spii $spir" && equal "$(server_json sessions sessions.0.spi_i) $(server_json sessions sessions.0.spi_r)" "$spii $spir" &&
		equal_sessions 1 && reach_inside
}
to_gateway=$(server_json sessions sessions.0.children.0.spi_in) to_laptop=$(client_json children.0.spi_in)

# hostile_part NAME COMMAND...: a probe runs through the tunnel while the command does.
hostile_part() {
	local name=$1; shift
	must "probe" tool probe laptop probe $INSIDE_4 "$(inner 4)"
	"$@" >"$WORK/hostile.figures" 2>&1 || { cat "$WORK/hostile.figures"; FAILED=1; }
	tool_end probe >/dev/null
	check "$name: sent" grep -q -E 'packets=[1-9]' "$WORK/hostile.figures"
	check "$name: the session lives on, the same" same_session
}

# --- garbage ------------------------------------------------------------------
must "watch" tool watch net watch gw to=$SPOOFED/32
# Receive buffers are touched, and the heap finds its size, in a first round.
for i in 1 2; do on net "$NSTOOL" blast $SPOOFED $GATEWAY_4 60000 "$to_gateway" >/dev/null; on net "$NSTOOL" blast $SPOOFED $LAPTOP_4 60000 "$to_laptop" >/dev/null; done
server_before=$(rss server) client_before=$(rss client)
hostile_part "$BLAST hostile datagrams to the gateway" on net "$NSTOOL" blast $SPOOFED $GATEWAY_4 "$BLAST" "$to_gateway"
hostile_part "$BLAST hostile datagrams to the client" on net "$NSTOOL" blast $SPOOFED $LAPTOP_4 "$BLAST" "$to_laptop"
flat() { echo "the $1 grew from $2 to $3 KiB"; [ "$3" -lt $(($2 + $2 / 10 + 4096)) ]; }
check "the gateway's memory is flat" flat gateway "$server_before" "$(rss server)"
check "the client's memory is flat" flat client "$client_before" "$(rss client)"
tool_end watch >/dev/null
check "nothing was sent to the spoofed address" equal "$(figure watch to)" 0
modest() { local n; n=$(wc -l <"$WORK/$1.log"); echo "$n lines"; [ "$n" -lt 300 ]; }
check "the gateway's log stays short" modest server
check "the client's log stays short" modest client

# --- what has broken others ---------------------------------------------------
hostile_part "oddities in the client's name" on net "$NSTOOL" oddities $LAPTOP_4:4500 $GATEWAY_4 "$spii" "$spir" "$to_gateway"
hostile_part "oddities in the gateway's name" on net "$NSTOOL" oddities $GATEWAY_4:4500 $LAPTOP_4 "$spii" "$spir" "$to_laptop"

# --- replays ------------------------------------------------------------------
# A whole life is recorded: two connects, traffic, renewed keys, disconnects.
must "keys renewed often" profile_set alice rekey_child '"2s"'
must "disconnects" vpn_client down
must "recorder" tool record net record gw "$WORK/capture"
must "connects" vpn_client up alice --timeout 20s
must "traffic" reach_inside
sleep 3
must "disconnects" vpn_client down
must "connects" vpn_client up alice --timeout 20s
must "traffic" reach_inside
spii=$(client_json spi_i) spir=$(client_json spi_r)
sleep 3
tool_end record >/dev/null
inits() { equal "$(vpn_server sessions --all --json | "$NSTOOL" field 'sessions.*.state' | grep -c established)" 1; }
hostile_part "replay from the true source to the gateway" on net "$NSTOOL" replay "$WORK/capture" $GATEWAY_4
hostile_part "replay from the true source to the client" on net "$NSTOOL" replay "$WORK/capture" $LAPTOP_4
must "watch" tool watch net watch gw to=$SPOOFED/32
hostile_part "replay from elsewhere to the gateway" on net "$NSTOOL" replay "$WORK/capture" $GATEWAY_4 from=$SPOOFED
hostile_part "replay from elsewhere to the client" on net "$NSTOOL" replay "$WORK/capture" $LAPTOP_4 from=$SPOOFED
tool_end watch >/dev/null
# The recorded IKE_SA_INIT requests are requests that anybody may send: an answer each
# is right (RFC 7296 §2.1). Nothing else may go there, ESP least of all.
few() { echo "$(figure watch to) packets were sent to the foreign source, $(figure record inits) requests came from there"; [ "$(figure watch to)" -le "$(figure record inits)" ]; }
check "a replay draws no traffic to its source" few
check "one session is established" inits

# --- half-open IKE SAs --------------------------------------------------------
must "disconnects" vpn_client down
server_before=$(rss server)
flood=$(on net "$NSTOOL" flood $GATEWAY_4 20000 198.18.0.0/16)
check "20000 requests from spoofed addresses" equal "$flood" packets=20000
began=$(date +%s%3N)
check "a legitimate client connects" vpn_client up alice --timeout 10s
took=$(($(date +%s%3N) - began))
soon() { echo "it took $took ms"; [ "$took" -lt 1000 ]; }
check "within a second" soon
check "and reaches" reach_inside
# 4096 half-open SAs of a few KiB each, by default.
bounded() { echo "the gateway grew from $1 to $2 KiB"; [ "$2" -lt $(($1 + 4096 * 8)) ]; }
check "the gateway's memory is bounded" bounded "$server_before" "$(rss server)"
finish
