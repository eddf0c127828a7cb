#!/usr/bin/env bash
# all.sh - everything that must pass before a change goes in; `make test` runs it.
#
#     test/all.sh [STEP...]     steps: format vet staticcheck go namespaces kernel packages
#
# Steps run one after the other, all of them also after a failure. Each prints lines
# that begin with PASS, FAIL or SKIP; the last line here counts them:
#
#     412 passed, 0 failed, 3 skipped
#
# A step that ends with an error without any FAIL line counts as one failure. What was
# skipped is listed at the end with its reason, since a skipped test proves nothing.
# GOTESTFLAGS goes to go test, GOPACKAGES replaces its ./...
set -u
cd "$(dirname "$0")/.." || exit 1
verdicts=$(mktemp)
trap 'rm -f "$verdicts"' EXIT

format() {
	local bad
	bad=$(find . -name '*.go' -not -path './.cache/*' -not -path '*/testdata/*' -print0 | xargs -0 gofmt -l)
	if [ -z "$bad" ]; then echo "PASS gofmt"; return; fi
	printf 'not formatted, run gofmt -w on:\n%s\nFAIL gofmt\n' "$bad"
}

vet() {
	if go vet ./...; then echo "PASS go vet"; else echo "FAIL go vet"; fi
}

staticcheck() {
	if make -s .cache/tools/staticcheck && .cache/tools/staticcheck ./...; then echo "PASS staticcheck"; else echo "FAIL staticcheck"; fi
}

# go_tests writes its verdicts itself: there are hundreds. What counts allocations and
# memory runs again without the race detector, which has some of its own, and so do the
# random histories of moves, of which there are fewer with it.
go_tests() {
	local raced counted
	# shellcheck disable=SC2086 # flags are several words
	go test -race -v ${GOTESTFLAGS-} ${GOPACKAGES-./...} 2>&1 | awk -v verdicts="$verdicts" -f test/gotest.awk
	raced=${PIPESTATUS[0]}
	go test -v -run 'Allocat|Memory|RandomMobility' ./esp ./esp/tun ./internal/transport ./mobike 2>&1 | awk -v verdicts="$verdicts" -f test/gotest.awk
	counted=${PIPESTATUS[0]}
	[ "$raced" -eq 0 ] && [ "$counted" -eq 0 ]
}

namespaces() {
	if [ ! -x test/run ]; then echo "SKIP namespace tests: test/run is not there"; return; fi
	if [ "$(id -u)" -ne 0 ]; then echo "SKIP namespace tests: they need root"; return; fi
	make -s build && test/run
}

kernel() {
	make -s build && test/xfrm/run
}

packages() {
	if [ "$(id -u)" -ne 0 ]; then echo "SKIP package tests: they need root"; return; fi
	packaging/test/run
}

# step NAME FUNCTION: run a step, collect its verdicts, say how long it took.
step() {
	local name=$1 began=$SECONDS status output before
	output=$(mktemp)
	before=$(grep -c '^FAIL' "$verdicts")
	echo "== $name"
	"$2" 2>&1 | tee "$output"
	status=${PIPESTATUS[0]}
	sed -nE "s/^(PASS|FAIL|SKIP)(:| )+/\1 $name: /p" "$output" >>"$verdicts"
	if [ "$status" -ne 0 ] && [ "$(grep -c '^FAIL' "$verdicts")" -eq "$before" ]; then
		echo "FAIL $name: exit status $status" >>"$verdicts"
	fi
	rm -f "$output"
	echo "-- $name took $((SECONDS - began)) s"
}

steps=("$@")
[ ${#steps[@]} -eq 0 ] && steps=(format vet staticcheck go namespaces kernel packages)
for s in "${steps[@]}"; do
	case $s in
	format | vet | staticcheck | namespaces | kernel | packages) step "$s" "$s" ;;
	go) step go go_tests ;;
	*) echo "all.sh: unknown step $s" >&2; exit 2 ;;
	esac
done

count() { grep -c "^$1" "$verdicts"; }
failed=$(count FAIL)
grep '^SKIP' "$verdicts"
grep '^FAIL' "$verdicts"
echo "$(count PASS) passed, $failed failed, $(count SKIP) skipped"
[ "$failed" -eq 0 ]
