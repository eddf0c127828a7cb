package config

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// maxSecret is the largest secret file, in octets.
const maxSecret = 64 << 10

// redacted is what a secret prints as.
const redacted = "(secret)"

// Secret is a pre-shared key or a password. It prints as "(secret)" however it is
// printed, encoded or logged. In a file it is either the text itself or
// "file:/path", and then the content of that file without its last line end.
type Secret struct {
	value []byte
	file  string
}

// NewSecret makes a secret of value, which it keeps.
func NewSecret(value []byte) Secret { return Secret{value: value} }

// Bytes returns the secret itself. The caller must not change or print it.
func (s Secret) Bytes() []byte { return s.value }

// File is the file that the secret was read from, empty if it stood in the
// configuration itself.
func (s Secret) File() string { return s.file }

// IsZero says whether there is no secret.
func (s Secret) IsZero() bool { return len(s.value) == 0 }

// Equal compares in time that does not depend on the content.
func (s Secret) Equal(other Secret) bool {
	return subtle.ConstantTimeCompare(s.value, other.value) == 1
}

// Zero overwrites the secret, in every copy of it.
func (s *Secret) Zero() {
	clear(s.value)
	s.value = nil
}

// String hides the secret.
func (s Secret) String() string { return redacted }

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return redacted }

// Format hides the secret from every verb.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// LogValue hides the secret from logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the secret from JSON and TOML. What it writes is refused when
// read back, so that it never becomes a secret itself.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// UnmarshalText reads a secret like Decode does, with relative file names taken
// from the working directory.
func (s *Secret) UnmarshalText(text []byte) error {
	_, err := s.load(string(text), ".", true)
	return err
}

// load sets the secret from text, or from the file that it names. The warning is
// about a file that others can read.
func (s *Secret) load(text, dir string, files bool) (warning string, err error) {
	path, isFile := strings.CutPrefix(text, "file:")
	switch {
	case text == "":
		return "", errors.New("the secret is empty")
	case text == redacted:
		return "", fmt.Errorf("holds the placeholder %q: put the secret itself here", redacted)
	case !isFile:
		*s = Secret{value: []byte(text)}
		return "", nil
	case !files:
		return "", errors.New(`"file:" is not allowed here: put the secret itself into the file`)
	case path == "":
		return "", errors.New(`"file:" lacks the name of the file`)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	data, err := ReadFile(path, maxSecret)
	if err != nil {
		return "", fmt.Errorf("read: %w", err)
	}
	data = bytes.TrimSuffix(data, []byte("\n"))
	data = bytes.TrimSuffix(data, []byte("\r"))
	if len(data) == 0 {
		return "", fmt.Errorf("the secret file %s is empty", path)
	}
	*s = Secret{value: data, file: path}
	return openToOthers(path), nil
}

// openToOthers warns of a secret file that others than its owner and group can
// read.
func openToOthers(path string) string {
	const others = 0o007
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&others == 0 {
		return ""
	}
	return fmt.Sprintf("the secret file %s is open to every user of this machine (mode %04o): run chmod 600 %s", path, info.Mode().Perm(), path)
}
