package deptest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const root = "../.."

// goFiles calls visit for every source file of the module that is not a test.
func goFiles(t *testing.T, visit func(pkg, path string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "dist" || name == "tools") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		pkg, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		visit(filepath.ToSlash(pkg), path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestImportsPointDown(t *testing.T) {
	imports := map[string][]string{}
	goFiles(t, func(pkg, path string) {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Error(err)
			return
		}
		for _, spec := range file.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(imports[pkg], p) {
				imports[pkg] = append(imports[pkg], p)
			}
		}
	})
	for _, pkg := range []string{"ike/message", "esp", "internal/config"} {
		if _, found := imports[pkg]; !found {
			t.Errorf("package %s was not found: is the walk broken?", pkg)
		}
	}
	for pkg, list := range imports {
		for _, v := range Violations(Rules, pkg, list) {
			t.Error(v)
		}
	}
}

// Engines get the time as an argument; a call of time.Now in them breaks replay and
// simulation without a trace.
func TestEnginesReadNoClock(t *testing.T) {
	goFiles(t, func(pkg, path string) {
		if !Pure(pkg) {
			return
		}
		for _, call := range clockReads(t, path, nil) {
			t.Error(call + ": engines get the time as an argument")
		}
	})
}

// clockReads lists the uses of the clock in a file, or in source if it is given.
func clockReads(t *testing.T, path string, source any) []string {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, source, parser.SkipObjectResolution)
	if err != nil {
		t.Error(err)
		return nil
	}
	name := ""
	for _, spec := range file.Imports {
		if spec.Path.Value == `"time"` {
			name = "time"
			if spec.Name != nil {
				name = spec.Name.Name
			}
		}
	}
	var found []string
	ast.Inspect(file, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := selector.X.(*ast.Ident)
		if ok && name != "" && x.Name == name && slices.Contains(clockCalls, selector.Sel.Name) {
			found = append(found, set.Position(n.Pos()).String()+": time."+selector.Sel.Name)
		}
		return true
	})
	return found
}

// The rules themselves: each direction once allowed, once forbidden.
func TestRulesForbidWhatTheyShould(t *testing.T) {
	for _, tt := range []struct {
		pkg, path string
		ok        bool
	}{
		{"suite", "crypto/sha256", true},
		{"suite", module + "locator", false},
		{"suite", "crypto/rand", false},
		{"ike/message", module + "suite", true},
		{"ike/message", module + "ike", false},
		{"ike", module + "ike/message", true},
		{"ike", module + "esp", true},
		{"ike", module + "esp/tun", false},
		{"ike", module + "internal/transport", false},
		{"ike", module + "mobike", false},
		{"ike", "net", false},
		{"ike", "net/netip", true},
		{"ike", "os", false},
		{"ike/auth", "net", true},
		{"ike/auth", module + "ike", false},
		{"mobike", module + "ike", true},
		{"mobike", module + "hip", false},
		{"locator", module + "suite", false},
		{"locator", "os", false},
		{"esp", module + "suite", true},
		{"esp", module + "ike", false},
		{"esp", "golang.org/x/sys/unix", false},
		{"esp/tun", "golang.org/x/sys/unix", true},
		{"esp/tun", module + "ike/message", false},
		{"internal/transport", module + "locator", true},
		{"internal/transport", module + "esp", false},
		{"internal/shard", module + "ike", true},
		{"internal/shard", module + "server", false},
		{"internal/reason", module + "internal/config", false},
		{"server", module + "client", false},
		{"server/store", module + "client/dns", false},
		{"client", module + "server", false},
		{"server", module + "esp/tun", true},
		{"pki", module + "server", false},
		{"cmd/vpn-server", module + "server", true},
		{"cmd/vpn-server", module + "ike", false},
		{"cmd/vpn-server", module + "internal/cli", true},
		{"server", module + "cmd/vpn-server", false},
		{"serverless", module + "client", true}, // a prefix of the name is not the tree
	} {
		v := Violations(Rules, tt.pkg, []string{tt.path})
		if (len(v) == 0) != tt.ok {
			t.Errorf("%s importing %s: %q", tt.pkg, tt.path, v)
		}
	}
	const source = `package x; import clock "time"; var _ = clock.Now; var _ = clock.Second`
	if got := clockReads(t, "x.go", source); len(got) != 1 {
		t.Errorf("uses of the clock: %q", got)
	}
}

// Exceptions that nobody needs any more are taken out.
func TestExceptionsAreNeeded(t *testing.T) {
	used := map[string]bool{}
	goFiles(t, func(pkg, path string) {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return // the other test says so
		}
		for _, spec := range file.Imports {
			used[pkg+" "+strings.Trim(spec.Path.Value, `"`)] = true
		}
	})
	for _, e := range exceptions {
		if !used[e.pkg+" "+e.path] {
			t.Errorf("%s no longer imports %s: remove the exception", e.pkg, e.path)
		}
	}
}

// planned are rooms that the rules know already (design) and that nobody has built yet.
var planned = []string{"hip/...", "mip/...", "ike/eap/..."}

// TestRulesMeanSomething: a rule about a package that is not there protects nothing; and
// what has been built is not planned any more.
func TestRulesMeanSomething(t *testing.T) {
	var pkgs []string
	goFiles(t, func(pkg, _ string) {
		if !slices.Contains(pkgs, pkg) {
			pkgs = append(pkgs, pkg)
		}
	})
	exists := func(pattern string) bool {
		return slices.ContainsFunc(pkgs, func(pkg string) bool { return matchAny([]string{pattern}, pkg) })
	}
	for _, p := range planned {
		if exists(p) {
			t.Errorf("%s exists: it is not planned any more", p)
		}
	}
	for _, r := range Rules {
		for _, p := range r.In {
			if !exists(p) && !matchAny(planned, p) && !slices.Contains(planned, p) {
				t.Errorf("no package matches %s (%s)", p, r.Why)
			}
		}
	}
}
