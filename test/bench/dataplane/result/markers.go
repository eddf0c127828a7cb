package result

import (
	"fmt"
	"strings"
)

// Replace puts text between the two markers of a block in a document:
//
//	<!-- bench:NAME -->
//	...
//	<!-- /bench:NAME -->
//
// What stands around is kept.
func Replace(document, name, text string) (string, error) {
	begin, end := "<!-- bench:"+name+" -->\n", "<!-- /bench:"+name+" -->"
	before, rest, ok := strings.Cut(document, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return "", fmt.Errorf("the document has no block between %q and %q", strings.TrimSpace(begin), end)
	}
	return before + begin + strings.TrimRight(text, "\n") + "\n" + end + after, nil
}
