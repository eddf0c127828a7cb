# gotest.awk - reads `go test -v` of many packages; shows one line per package, and for
# packages that fail what their tests said. Appends a verdict per test to the file
# `verdicts`: PASS, FAIL or SKIP with the reason. Subtests count with their test.

function verdict(word, what) { pending[++n] = word " go: %s " what }

/^=== (RUN|PAUSE|CONT|NAME)/ || /^(PASS|FAIL)$/ || /^ +--- (PASS|SKIP)/ { next }
/^--- PASS: / { verdict("PASS", $3); last = ""; next }
/^--- SKIP: / { verdict("SKIP", $3 last); last = ""; next }
/^--- FAIL: / { verdict("FAIL", $3); failures++ }
/^(ok|FAIL|\?|---)[ \t]+[^ \t]+\// {
	if ($1 == "FAIL") {
		printf "%s", said
		if (!failures) verdict("FAIL", $3 " " $4)
	}
	print
	fflush()
	for (i = 1; i <= n; i++) printf pending[i] "\n", $2 >> verdicts
	said = ""
	failures = n = 0
	next
}
{
	said = said $0 "\n"
	# What a test says last before it is skipped is the reason.
	last = $0
	if (!sub(/^ +[A-Za-z0-9_]+\.go:[0-9]+: /, ": ", last)) last = ""
	gsub(/%/, "%%", last)
}
END { printf "%s", said }
