#!/usr/bin/env bash
# fuzz.sh - run every fuzz target there is.
#
#     test/fuzz.sh              all targets; `make fuzz` calls it
#     test/fuzz.sh PATTERN      those whose "package target" matches a regular expression
#
# FUZZTIME  how long each target runs                              (default 1m)
# FUZZJOBS  how many targets run side by side                      (default 1)
# FUZZPROCS workers of each target           (default: processors / FUZZJOBS)
# FUZZKEEP  after each target, copy inputs from Go's fuzz cache to testdata/fuzz, so
#           that about so many of all sizes are there to commit    (default 0)
#
# Inputs that break something are left by Go in testdata/fuzz of the package; commit
# them with the fix. The last line counts targets: "N passed, N failed, N skipped".
set -u
cd "$(dirname "$0")/.." || exit 1
pattern=${1-.}
export FUZZTIME=${FUZZTIME:-1m} FUZZJOBS=${FUZZJOBS:-1} FUZZKEEP=${FUZZKEEP:-0}
export FUZZPROCS=${FUZZPROCS:-$((($(nproc) + FUZZJOBS - 1) / FUZZJOBS))}

# Targets: "directory name", one per line.
targets() {
	find . -name '*_test.go' -not -path './.cache/*' -not -path './tools/*' -print0 |
		xargs -0 grep -HoE '^func Fuzz[A-Za-z0-9_]*' |
		sed -E 's|/[^/]*_test.go:func | |' | sort -u | grep -E -- "$pattern"
}

# keep DIRECTORY NAME: choose from the inputs that reached new code, evenly from the
# shortest to those of 2 KiB.
keep() {
	local cache into file
	cache=$(go env GOCACHE)/fuzz/$(go list "$1")/$2
	into=$1/testdata/fuzz/$2
	[ "$FUZZKEEP" -gt 0 ] && [ -d "$cache" ] || return 0
	mkdir -p "$into"
	find "$cache" -type f -size -2049c -printf '%s %f\n' | sort -n |
		awk -v keep="$FUZZKEEP" '{ name[NR] = $2 }
			END { for (i = 0; i < keep && i < NR; i++) print name[1 + int(i * NR / (keep < NR ? keep : NR))] }' |
		while read -r file; do
			[ -e "$into/$file" ] || cp "$cache/$file" "$into/"
		done
}

one() { # one DIRECTORY NAME
	local log
	log=$(mktemp)
	if go test -run '^$' -fuzz "^$2\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 20x -parallel "$FUZZPROCS" "$1" >"$log" 2>&1; then
		echo "PASS $1 $2: $(grep -E '^fuzz: elapsed' "$log" | tail -n 1)"
		keep "$1" "$2"
	else
		cat "$log"
		echo "FAIL $1 $2"
	fi
	rm -f "$log"
}
export -f one keep

results=$(mktemp)
trap 'rm -f "$results"' EXIT
targets | xargs -P "$FUZZJOBS" -L 1 bash -c 'one "$0" "$1"' | tee "$results"
failed=$(grep -c '^FAIL' "$results")
echo "$(grep -c '^PASS' "$results") passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
