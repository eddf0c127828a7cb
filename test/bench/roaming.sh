#!/usr/bin/env bash
# roaming.sh - what a change of the network costs: gaps in traffic, with the real programs.
#
#     test/bench/roaming.sh measure [SCENARIO...]   run what is not measured yet
#     test/bench/roaming.sh table                   print the table of docs/roaming.md
#
#   RUNS=10      runs of each scenario and pairing; the table has medians
#   RESULTS=DIR  where results are kept (.cache/roaming): one file a pairing and scenario,
#                one line a run. Interrupt it and start it again as you like.
#   LAB=DIR      a roaming lab: LAB/run-lab -s SERVER -c CLIENT -w DIR SCENARIO prints a line
#                "PASS SCENARIO 5s gap=12ms lost=1 tcp=ok same-ike-sa=yes path=..."; it drives
#                test/lab/adapter.sh, and strongSwan for comparison.
#   PAIRINGS     of the lab (default "ours-ours strongswan-strongswan ours-strongswan
#                strongswan-ours": server-client)
#
# Without LAB the project's own namespaces (test/ns/lib.sh) serve: link-switch, better-link
# and path-failure between our own two programs. Pings of 10 ms, one TCP connection, links
# without delay. Needs root; run it on a machine that does nothing else.
set -u
cd "$(dirname "$0")/../.." || exit 1
RUNS=${RUNS:-10}
RESULTS=${RESULTS:-$PWD/.cache/roaming}
LAB=${LAB:-}
PAIRINGS=${PAIRINGS:-ours-ours strongswan-strongswan ours-strongswan strongswan-ours}
LAB_SCENARIOS="roam-link-switch roam-v4-to-v6 server-address-change roam-break-before-make roam-to-nat-and-back nat-rebind nat-rebind-early path-failure udp-blocked long-outage"
OWN_SCENARIOS="link-switch better-link path-failure"
mkdir -p "$RESULTS" || exit 1

# runs FILE: how many it has.
runs() { [ -f "$1" ] && grep -c . "$1" || echo 0; }

measure_lab() {
	local pairing scenario file line round
	export VPN_BIN_DIR=${VPN_BIN_DIR:-$PWD/bin} VPN_ADAPTER=${VPN_ADAPTER:-$PWD/test/lab/adapter.sh}
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	for round in $(seq "$RUNS"); do # round by round, so that an interrupted run has a bit of all
		for scenario in ${@:-$LAB_SCENARIOS}; do
			for pairing in $PAIRINGS; do
				file=$RESULTS/$pairing.$scenario
				[ "$(runs "$file")" -lt "$round" ] || continue
				line=$("$LAB/run-lab" -s "${pairing%-*}" -c "${pairing#*-}" -w "$work" "$scenario" </dev/null | grep -E '^(PASS|FAIL|SKIP) ')
				echo "$line" | tee -a "$file"
			done
		done
	done
}

# --- in our own namespaces ------------------------------------------------------
blackhole() {
	case $1 in
	on) on net nft -f - <<-N
		table ip dead { chain forward { type filter hook forward priority 0;
			ip saddr $LAPTOP_4 ip daddr $GATEWAY_4 drop
			ip saddr $GATEWAY_4 ip daddr $LAPTOP_4 drop
		}; }
		N
		;;
	off) on net nft delete table ip dead;;
	esac
}
# event SCENARIO: one event under traffic; prints a line as the lab does.
event() {
	local before tcp gap same=no
	before=$(client_json spi_i)
	tool probe laptop probe $INSIDE_4 "$(inner 4)" && tool stream laptop stream $INSIDE_4 "$(inner 4)" || return 1
	sleep 1
	case $1 in
	link-switch) uplink_off a;;
	better-link) uplink_on a;;
	path-failure) blackhole on;;
	esac
	sleep 3
	tool_end probe >/dev/null; tool_end stream >/dev/null
	[ "$(client_json spi_i)" = "$before" ] && same=yes
	gap=$(figure probe gap_ms) tcp=$(figure stream tcp)
	echo "PASS $1 4s gap=${gap%.*}ms lost=$(figure probe lost) tcp=$tcp same-ike-sa=$same path=$(client_json local.address)>$(client_json remote.address)"
}
standby_ready() { vpn_client paths | grep -q 'standby.*192\.168\.77\.10.*verified.*operational'; }
measure_own() {
	local round
	TEST=roaming PREFIX=wfroam$$
	. test/ns/lib.sh
	SCRATCH=$(mktemp -d)
	NSTOOL=$SCRATCH/nstool
	CGO_ENABLED=0 go build -o "$NSTOOL" ./test/ns/nstool || exit 1
	begin
	uplink_on b
	must "gateway" server_init; must "gateway starts" server_start; must "user" user_add alice; must "client starts" client_start
	must "connects" vpn_client up alice --timeout 20s
	for round in $(seq "$(runs "$RESULTS/ours-ours.path-failure")" $((RUNS - 1))); do
		must "standby" within 30 standby_ready
		event link-switch | tee -a "$RESULTS/ours-ours.link-switch"
		event better-link | tee -a "$RESULTS/ours-ours.better-link"
		must "standby" within 30 standby_ready
		event path-failure | tee -a "$RESULTS/ours-ours.path-failure"
		blackhole off
		must "a new session" vpn_client down
		must "connects" vpn_client up alice --timeout 20s
	done
}

# --- the table ------------------------------------------------------------------
# The time without network that a scenario has by itself, in ms.
base() { case $1 in roam-break-before-make) echo 2000;; udp-blocked) echo 30000;; long-outage) echo 60000;; *) echo 0;; esac; }
# cell FILE: median of the gap beyond the scenario's own, worst, and lost packets.
cell() {
	local total passed base
	total=$(runs "$1")
	[ "$total" -gt 0 ] || { echo -; return; }
	passed=$(grep -c '^PASS' "$1")
	base=$(base "$2")
	[ "$passed" -gt 0 ] || { grep -q '^SKIP' "$1" && echo "not supported" || echo "does not recover"; return; }
	grep '^PASS' "$1" | sed -E 's/.*gap=([0-9]+)ms lost=([0-9]+).*/\1 \2/' | sort -n | awk -v base="$base" -v total="$total" -v passed="$passed" '
		{gap[NR] = $1 > base ? $1 - base : 0; lost[NR] = $2 - base / 10}
		END {
			m = NR % 2 ? gap[(NR + 1) / 2] : (gap[NR / 2] + gap[NR / 2 + 1]) / 2
			n = asort_lost(lost, NR)
			printf "%d (%d), %d", m, gap[NR], n < 0 ? 0 : n
			if (passed < total) printf ", %d of %d runs", passed, total
		}
		function asort_lost(v, n,   i, j, t) { for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j] < v[j-1]; j--) {t = v[j]; v[j] = v[j-1]; v[j-1] = t}; return v[int((n + 1) / 2)] }'
	echo
}
table() {
	local scenario pairing file list
	echo "| scenario | runs | $(sed -E 's/ / | /g' <<<"$PAIRINGS") |"
	printf '|---|---|'; for pairing in $PAIRINGS; do printf -- '---|'; done; echo
	list=$(for file in "$RESULTS"/*.*; do echo "${file##*.}"; done | sort -u)
	for scenario in $(printf '%s\n' $LAB_SCENARIOS $OWN_SCENARIOS | awk '!seen[$0]++'); do
		grep -qx "$scenario" <<<"$list" || continue
		printf '| %s | %s |' "$scenario" "$(runs "$RESULTS/ours-ours.$scenario")"
		for pairing in $PAIRINGS; do printf ' %s |' "$(cell "$RESULTS/$pairing.$scenario" "$scenario")"; done
		echo
	done
}

case ${1:-} in
measure)
	shift
	[ "$(id -u)" = 0 ] || { echo "the roaming benchmark needs root"; exit 1; }
	[ -x bin/vpn-server ] && [ -x bin/vpn-client ] || { echo "bin/vpn-server or bin/vpn-client is missing; run make build"; exit 1; }
	if [ -n "$LAB" ]; then measure_lab "$@"; else measure_own; fi;;
table) table;;
*) sed -n '2,24s/^# \{0,1\}//p' "$0"; exit 2;;
esac
