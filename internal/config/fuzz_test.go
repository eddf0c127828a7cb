package config

import (
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// FuzzDecode feeds arbitrary files. Whatever the parser accepts the scanner must
// have followed to the end, since only then do its limits hold: every key that
// the parser knows must have a line.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		goodFile, "", "\xef\xbb\xbfname = 1", "a.b.c = [1, [2, 3], {x = 1, y.z = 2}]", "[[a]]\n[[a.b]]\nc=1\n[a.d]\n[[a]]\n[[a.b]]\nc=2",
		"a = \"\"\"\"two quotes\"\"\"\"\"\nb = 1", "a = ''''x'''''\nb = 1", "a = \"\"\"\\\"\"\"\"\nb=1", "'quoted key' = 1\n\"a\\u0062\\\\\" = 2\n\"\" = 3",
		"x = { a = 1, # comment\n b = [ ], }\r\ny = 1979-05-27 07:32:00 # date", "x = 0x10\ny = -inf", "[a]\n[a.b]\n[ a . 'c' ]\nd=1",
		"a = \"\\x41\\e\"\nb = '#'", "[[user]]\npsk='x'\n", "[network]\nlease_time='9999999999999h'\nmax-bytes='1TiB'",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var c testConfig
		doc, err := Parse("f.toml", data, &c, WithoutFiles())
		if err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
		if doc == nil {
			return
		}
		for _, problem := range doc.Problems().List() {
			if problem.Line == 0 {
				t.Errorf("no line for %v", problem)
			}
		}
		var tree map[string]any
		meta, err := toml.Decode(string(data), &tree)
		if err != nil {
			t.Fatalf("accepted, but the parser says %v", err)
		}
		known := map[string]bool{}
		for path := range doc.where {
			known[withoutIndexes(path)] = true
		}
		for _, key := range meta.Keys() {
			path := ""
			for _, segment := range key {
				path = joinKey(path, segment)
			}
			if !known[withoutIndexes(path)] {
				t.Errorf("the scanner missed %s", path)
			}
		}
	})
}

// withoutIndexes removes [0] and the like outside of quotes.
func withoutIndexes(path string) string {
	var b strings.Builder
	quoted, index := false, false
	for i := 0; i < len(path); i++ {
		c := path[i]
		switch {
		case quoted && c == '\\':
			b.WriteByte(c)
			i++
			c = path[i]
		case c == '"':
			quoted = !quoted
		case !quoted && c == '[':
			index = true
		case !quoted && c == ']':
			index = false
			continue
		}
		if !index {
			b.WriteByte(c)
		}
	}
	return b.String()
}
