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
# Without LAB the project's own namespaces (test/ns/lib.sh) serve, for the events of
# test/ns/lib-events.sh between our own two programs; their table is printed beside that of
# the lab. Pings of 10 ms, one TCP connection, links without delay. Needs root; run it on a
# machine that does nothing else.
set -u
cd "$(dirname "$0")/../.." || exit 1
RUNS=${RUNS:-10}
RESULTS=${RESULTS:-$PWD/.cache/roaming}
LAB=${LAB:-}
PAIRINGS=${PAIRINGS:-ours-ours strongswan-strongswan ours-strongswan strongswan-ours}
LAB_SCENARIOS="roam-link-switch roam-v4-to-v6 server-address-change roam-break-before-make roam-to-nat-and-back nat-rebind nat-rebind-early path-failure udp-blocked long-outage"
OWN_SCENARIOS="link-switch better-link server-address break-before-make path-failure path-failure-out path-failure-in path-failure-300ms second-address flapping flapping-alone both-move move-rekey-child move-rekey-ike move-ike-auth move-ike-auth-answered"
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
# Those whose time counts from the last change on, not from the first packet lost.
from_the_last_change() { case $1 in break-before-make|flapping*|both-move|move-*) return 0;; *) return 1;; esac; }
# run_event SCENARIO: prints a line as the lab does.
run_event() {
	local verdict=PASS began=$SECONDS why
	event "$1" >"$SCRATCH/why" || { verdict=FAIL; sed 's/^/    /' "$SCRATCH/why" >&2; }
	tcp_lives && [ "$SAME" = yes ] || verdict=FAIL
	from_the_last_change "$1" && GAP=$BACK
	echo "$verdict $1 $((SECONDS - began))s gap=${GAP}ms lost=$LOST tcp=$TCP same-session=$SAME path=$WHERE"
}
measure_own() {
	local round scenario
	TEST=roaming PREFIX=wfroam$$
	. test/ns/lib.sh
	. test/ns/lib-events.sh
	SCRATCH=$(mktemp -d)
	NSTOOL=$SCRATCH/nstool
	CGO_ENABLED=0 go build -o "$NSTOOL" ./test/ns/nstool || exit 1
	events_up
	for round in $(seq "$RUNS"); do
		for scenario in ${@:-$OWN_SCENARIOS}; do
			[ "$(runs "$RESULTS/own.$scenario")" -lt "$round" ] || continue
			run_event "$scenario" | tee -a "$RESULTS/own.$scenario"
		done
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
lab_table() {
	local scenario pairing
	echo "| scenario | runs | $(sed -E 's/ / | /g' <<<"$PAIRINGS") |"
	printf '|---|---|'; for pairing in $PAIRINGS; do printf -- '---|'; done; echo
	for scenario in $LAB_SCENARIOS; do
		[ -f "$RESULTS/ours-ours.$scenario" ] || continue
		printf '| %s | %s |' "$scenario" "$(runs "$RESULTS/ours-ours.$scenario")"
		for pairing in $PAIRINGS; do printf ' %s |' "$(cell "$RESULTS/$pairing.$scenario" "$scenario")"; done
		echo
	done
}
# What happens in our own scenarios, and how long it may take.
told() {
	case $1 in
	link-switch) echo "an uplink goes, another is in standby | 50 ms";;
	better-link) echo "a better uplink comes | 50 ms";;
	server-address) echo "the gateway loses the address in use | 50 ms";;
	break-before-make) echo "two seconds without an uplink, then another: since its address is there | 100 ms";;
	path-failure) echo "a path dies silently, another uplink in standby | 1 s";;
	path-failure-out) echo "the same on the way out only | 1 s";;
	path-failure-in) echo "the same on the way back only | 1 s";;
	path-failure-300ms) echo "the same with \`path_failure = \"300ms\"\` | 500 ms";;
	second-address) echo "the path to an address of the gateway dies silently, one uplink | 3 s";;
	flapping) echo "an uplink goes and comes five times beside another: since the last change | 2 s";;
	flapping-alone) echo "the only uplink goes and comes five times: since the last change | 2 s";;
	both-move) echo "both sides move within 300 ms: since the last change | 2 s";;
	move-rekey-child) echo "a move while a Child SA is renewed | 2 s";;
	move-rekey-ike) echo "a move while the IKE SA is renewed | 2 s";;
	move-ike-auth) echo "the uplink goes before IKE_AUTH arrives: until connected | 2 s";;
	move-ike-auth-answered) echo "the uplink goes before the answer to IKE_AUTH arrives: until connected | 2 s";;
	esac
}
own_table() {
	local scenario
	echo "| event | bound | runs | gap in ms: median (worst), packets lost |"
	echo "|---|---|---|---|"
	for scenario in $OWN_SCENARIOS; do
		[ -f "$RESULTS/own.$scenario" ] && echo "| $(told "$scenario") | $(runs "$RESULTS/own.$scenario") | $(cell "$RESULTS/own.$scenario" "$scenario") |"
	done
}
table() {
	local found=
	compgen -G "$RESULTS/*-*.*" >/dev/null && { lab_table; found=1; }
	compgen -G "$RESULTS/own.*" >/dev/null && { echo; own_table; found=1; }
	[ -n "$found" ] || { echo "nothing is measured yet"; exit 1; }
}

case ${1:-} in
measure)
	shift
	[ "$(id -u)" = 0 ] || { echo "the roaming benchmark needs root"; exit 1; }
	[ -x bin/vpn-server ] && [ -x bin/vpn-client ] || { echo "bin/vpn-server or bin/vpn-client is missing; run make build"; exit 1; }
	if [ -n "$LAB" ]; then measure_lab "$@"; else measure_own "$@"; fi;;
table) table;;
*) sed -n '2,25s/^# \{0,1\}//p' "$0"; exit 2;;
esac
