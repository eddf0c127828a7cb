package suite

import (
	"bytes"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

// unhex decodes hexadecimal with spaces and line breaks in it.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatalf("bad hexadecimal in the test: %v", err)
	}
	return b
}

// vectors returns the lines of a file in testdata, split into fields. Lines that
// start with # say where the vectors are from.
func vectors(t testing.TB, name string) [][]string {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var lines [][]string
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 0 && !strings.HasPrefix(line, "#") {
			lines = append(lines, fields)
		}
	}
	if len(lines) == 0 {
		t.Fatalf("no vectors in %s", name)
	}
	return lines
}

// seeded returns randomness that is the same for equal seeds.
func seeded(seed byte) io.Reader {
	return rand.NewChaCha8([32]byte{seed})
}

// zeros is a broken source of randomness.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// dry is a source of randomness that fails.
var dry = bytes.NewReader(nil)
