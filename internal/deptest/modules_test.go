package deptest

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Every module of go.mod is explained in docs/dependencies.md, and nothing else is.
func TestDependenciesAreExplained(t *testing.T) {
	mod, err := os.ReadFile(root + "/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(root + "/docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	inMod := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^(?:\t|require )([^\s()]+) v`).FindAllStringSubmatch(string(mod), -1) {
		inMod[m[1]] = true
		if !strings.Contains(string(page), "`"+m[1]+"`") {
			t.Errorf("docs/dependencies.md does not explain %s", m[1])
		}
	}
	if len(inMod) == 0 {
		t.Error("no modules found in go.mod")
	}
	for _, m := range regexp.MustCompile("`([a-z0-9.]+\\.[a-z]+/[^`]+)`").FindAllStringSubmatch(string(page), -1) {
		if !inMod[m[1]] && !strings.HasSuffix(m[1], ".mod") {
			t.Errorf("docs/dependencies.md explains %s, which go.mod does not have", m[1])
		}
	}
}
