package reason

import (
	"fmt"
	"io"
	"strings"
)

// WriteManual writes the catalogue as the page docs/reasons.md of the manual.
func WriteManual(w io.Writer) error {
	var b strings.Builder
	b.WriteString(`# Reasons

Every refusal and every end of a session has a code. It stands in log lines (` + "`reason=…`" + `), in the output of
status commands and in their JSON; its meaning does not change between releases. Where a reason
goes with a notify of RFC 7296 or RFC 4555, that is named too.

This page is generated from ` + "`internal/reason`" + ` by ` + "`go generate ./internal/reason`" + `.
`)
	for _, g := range groups {
		fmt.Fprintf(&b, "\n## %s\n", g.title)
		for _, r := range g.reasons {
			fmt.Fprintf(&b, "\n### `%s`\n\n%s.", r.Code, r.Title)
			if r.Hint != "" {
				b.WriteString(" " + r.Hint)
			}
			fmt.Fprintf(&b, "\n\nSeverity: %s.", r.Severity)
			if r.Notify != "" {
				fmt.Fprintf(&b, " Notify: %s.", r.Notify)
			}
			b.WriteString("\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
