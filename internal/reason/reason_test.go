package reason

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite docs/reasons.md")

const manual = "../../docs/reasons.md"

func TestCatalogueIsSound(t *testing.T) {
	kebab := regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	notify := regexp.MustCompile(`^[A-Z]+(_[A-Z0-9]+)*$`)
	seen := map[Code]bool{}
	for _, r := range All() {
		if seen[r.Code] {
			t.Errorf("%s appears twice", r.Code)
		}
		seen[r.Code] = true
		if !kebab.MatchString(string(r.Code)) {
			t.Errorf("%q is not lower-kebab", r.Code)
		}
		if r.Title == "" || strings.HasSuffix(r.Title, ".") || r.Title[0] < 'A' || r.Title[0] > 'Z' {
			t.Errorf("%s: title %q", r.Code, r.Title)
		}
		if r.Hint != "" && !strings.HasSuffix(r.Hint, ".") && !strings.HasSuffix(r.Hint, "?") {
			t.Errorf("%s: hint %q", r.Code, r.Hint)
		}
		if r.Severity == SeverityError && r.Hint == "" && r.Code != NotFound && r.Code != AlreadyExists && r.Code != InvalidRequest && r.Code != Conflict {
			t.Errorf("%s: an error without a hint", r.Code)
		}
		if r.Severity.String() == "unknown" {
			t.Errorf("%s: severity %d", r.Code, r.Severity)
		}
		if r.Notify != "" && !notify.MatchString(r.Notify) {
			t.Errorf("%s: notify %q", r.Code, r.Notify)
		}
		if got, ok := Lookup(r.Code); !ok || got != r {
			t.Errorf("Lookup(%s) is %+v, %v", r.Code, got, ok)
		}
	}
}

// Every constant of type Code is in the catalogue.
func TestEveryCodeIsInTheCatalogue(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "codes.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	constants := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		code, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		constants++
		if _, ok := Lookup(Code(code)); !ok {
			t.Errorf("%s = %s is not in the catalogue", spec.Names[0].Name, code)
		}
		return true
	})
	if constants != len(All()) {
		t.Errorf("%d constants, %d reasons", constants, len(All()))
	}
}

// Every code can be met: something produces it, or a peer's notify stands for it. What
// the command line makes of codes does not count.
func TestEveryCodeIsProduced(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "codes.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	name := regexp.MustCompile(`\breason\.([A-Z]\w*)`)
	for _, room := range []string{"client", "server", "cmd", "ike", "mobike", "esp", "pki", "internal"} {
		err := filepath.WalkDir("../../"+room, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "internal/cli/") {
				return err
			}
			data, err := os.ReadFile(path)
			for _, m := range name.FindAllSubmatch(data, -1) {
				used[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		code, _ := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		r, _ := Lookup(Code(code))
		if of, ok := ByNotify(r.Notify); !used[spec.Names[0].Name] && !(ok && of.Code == r.Code) {
			t.Errorf("nothing produces %s", code)
		}
		return true
	})
}

// The manual holds what the code holds. Run with -update to write it.
func TestManualIsUpToDate(t *testing.T) {
	var want bytes.Buffer
	if err := WriteManual(&want); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.MkdirAll("../../docs", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(manual, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("docs/reasons.md is out of date: run go generate ./internal/reason")
	}
}

func TestError(t *testing.T) {
	err := fmt.Errorf("session 7: %w", &Error{Code: CertExpired, Detail: "on 2026-01-31", Err: fs.ErrInvalid})
	if want := "session 7: The certificate is no longer valid: on 2026-01-31: invalid argument"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
	if Of(err) != CertExpired || Of(nil) != "" || Of(fs.ErrInvalid) != InternalError {
		t.Error("Of is wrong")
	}
	if !errors.Is(err, fs.ErrInvalid) || !errors.Is(err, &Error{Code: CertExpired}) || errors.Is(err, &Error{Code: CertRevoked}) {
		t.Error("errors.Is is wrong")
	}
	if got := New(NotFound, "session %d", 9).Error(); got != "There is no such thing: session 9" {
		t.Errorf("New: %q", got)
	}
	if got := Wrap(Timeout, fs.ErrClosed); !errors.Is(got, fs.ErrClosed) || Of(got) != Timeout {
		t.Errorf("Wrap: %v", got)
	}
	if r, ok := Lookup("from-the-future"); ok || r.Title != "from the future" {
		t.Errorf("an unknown code: %+v, %v", r, ok)
	}
}

func TestByNotify(t *testing.T) {
	for notify, want := range map[string]Code{
		"AUTHENTICATION_FAILED": AuthFailed, "NO_PROPOSAL_CHOSEN": NoProposalChosen, "INTERNAL_ADDRESS_FAILURE": NoAddressAssigned,
	} {
		if r, ok := ByNotify(notify); !ok || r.Code != want {
			t.Errorf("%s is %s, want %s", notify, r.Code, want)
		}
	}
	if _, ok := ByNotify(""); ok {
		t.Error("an empty notify has a reason")
	}
}

// TestNotifies: names of notifies lead to reasons and back; where several reasons share a
// notify, the most general one stands for it.
func TestNotifies(t *testing.T) {
	for _, r := range All() {
		if r.Notify == "" {
			continue
		}
		if got, ok := ByNotify(r.Notify); !ok || got.Code.NotifyName() != r.Notify {
			t.Errorf("%s: %s leads to %s, %v", r.Code, r.Notify, got.Code, ok)
		}
	}
	for name, want := range map[string]Code{
		"AUTHENTICATION_FAILED": AuthFailed, "INTERNAL_ADDRESS_FAILURE": NoAddressAssigned,
		"INVALID_SYNTAX": MalformedMessage, "INVALID_IKE_SPI": UnknownSPI, "INVALID_SPI": InvalidSPI,
	} {
		if r, _ := ByNotify(name); r.Code != want {
			t.Errorf("%s leads to %s, want %s", name, r.Code, want)
		}
	}
	if _, ok := ByNotify(""); ok {
		t.Error("no notify leads to a reason")
	}
	if n := PeerDead.NotifyName(); n != NotifyTimeout {
		t.Errorf("a dead peer has notify %q", n)
	}
}
