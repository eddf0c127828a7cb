# gotest.awk - reads `go test -v` of many packages; shows one line per package, and for
# packages that fail what their tests said. Appends a verdict per test to the file
# `verdicts`: PASS, FAIL or SKIP with the reason. Subtests count with their test.

# The line after a skipped test gives the reason.
skipped != "" {
	reason = $0
	if (sub(/^ +[A-Za-z0-9_]+\.go:[0-9]+: /, "", reason)) skipped = skipped " " reason
	print "SKIP go: " skipped >> verdicts
	skipped = ""
}
/^=== (RUN|PAUSE|CONT|NAME)/ || /^(PASS|FAIL)$/ || /^ +--- (PASS|SKIP)/ { next }
/^--- PASS: / { print "PASS go: " $3 >> verdicts; next }
/^--- SKIP: / { skipped = $3; next }
/^--- FAIL: / { print "FAIL go: " $3 >> verdicts; failures++ }
/^(ok|FAIL|\?|---)[ \t]+[^ \t]+\// {
	if ($1 == "FAIL") {
		printf "%s", said
		if (!failures) print "FAIL go: " $2 " " $3 " " $4 >> verdicts
	}
	print
	fflush()
	said = ""
	failures = 0
	next
}
{ said = said $0 "\n" }
END { printf "%s", said }
