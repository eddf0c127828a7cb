package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	urfave "github.com/urfave/cli/v2"

	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/internal/control"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// demo is a program like ours. What its commands saw is in the returned text.
func demo(saw *strings.Builder) *urfave.App {
	note := func(c *urfave.Context) error {
		fmt.Fprintf(saw, "%s args=%q config=%q json=%v days=%d", c.Command.HelpName, c.Args().Slice(), c.String("config"), c.Bool("json"), c.Int("days"))
		return nil
	}
	return New(Info{
		Name: "vpn-demo", Usage: "a gateway for tests", Description: "It does *nothing* with {{braces}}.",
		Examples: []Example{{"vpn-demo run", "Start it"}},
		Files:    []File{{"/etc/wayfarer/demo.toml", "the configuration"}},
		SeeAlso:  []string{"vpn-client(8)"},
		Flags:    []urfave.Flag{&urfave.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "read `FILE`", Value: "/etc/demo.toml"}},
		Commands: []*urfave.Command{
			{Name: "run", Usage: "run in the foreground", Action: note},
			{Name: "status", Usage: "show the status", Flags: []urfave.Flag{JSONFlag()}, Action: note},
			{Name: "user", Usage: "manage users", Description: Describe("Users are people.", Example{"vpn-demo user list", "Who is there"}), Subcommands: []*urfave.Command{
				Complete(&urfave.Command{Name: "add", Usage: "add a user", ArgsUsage: "USER",
					Description: Describe("Adds {{one}}.", Example{"vpn-demo user add alice", "Add alice"}, Example{"vpn-demo user add\nbob", ""}),
					Flags:       []urfave.Flag{JSONFlag(), &urfave.IntFlag{Name: "days", Usage: "valid for `N` days", Value: 365}},
					Action: func(c *urfave.Context) error {
						if _, err := Args(c, "USER"); err != nil {
							return err
						}
						return note(c)
					}}, func(*urfave.Context) []string { return []string{"alice", "alfred", "bo\x1bb"} }),
			}},
			{Name: "fail", Hidden: true, Action: func(c *urfave.Context) error { return reason.New(reason.PoolExhausted, "10.0.0.0/30") }},
			{Name: "need", Usage: "need an option", Flags: []urfave.Flag{&urfave.StringFlag{Name: "name", Usage: "the name", Required: true}}, Action: note},
		},
	})
}

// run runs the demo and returns its exit code, standard output and standard error.
func run(args ...string) (code int, saw, stdout, stderr string) {
	var s strings.Builder
	var out, errs bytes.Buffer
	app := demo(&s)
	app.Writer, app.ErrWriter = &out, &errs
	code = Run(context.Background(), app, append([]string{"vpn-demo"}, args...))
	return code, s.String(), out.String(), errs.String()
}

func TestOptionsMayStandAnywhere(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"run", `vpn-demo run args=[] config="/etc/demo.toml" json=false days=0`},
		{"--config x run", `vpn-demo run args=[] config="x" json=false days=0`},
		{"run --config x", `vpn-demo run args=[] config="x" json=false days=0`},
		{"run -c=x", `vpn-demo run args=[] config="x" json=false days=0`},
		{"user add alice --json", `vpn-demo user add args=["alice"] config="/etc/demo.toml" json=true days=365`},
		{"user add alice --days 3 --config y --json", `vpn-demo user add args=["alice"] config="y" json=true days=3`},
		{"user --config y add --days=3 alice", `vpn-demo user add args=["alice"] config="y" json=false days=3`},
		{"user add -- --json", `vpn-demo user add args=["--json"] config="/etc/demo.toml" json=false days=365`},
		{"user add help", `vpn-demo user add args=["help"] config="/etc/demo.toml" json=false days=365`},
		{"user add h", `vpn-demo user add args=["h"] config="/etc/demo.toml" json=false days=365`},
		{"user add add", `vpn-demo user add args=["add"] config="/etc/demo.toml" json=false days=365`},
		{"user add -", `vpn-demo user add args=["-"] config="/etc/demo.toml" json=false days=365`},
	} {
		code, saw, _, stderr := run(strings.Fields(tt.line)...)
		if code != ExitOK || saw != tt.want {
			t.Errorf("%s: exit %d\n got %s\nwant %s\n%s", tt.line, code, saw, tt.want, stderr)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"user add", "error: USER is missing\nhint: Usage: vpn-demo user add USER\n"},
		{"user add a b", "error: unexpected argument \"b\"\nhint: Usage: vpn-demo user add USER\n"},
		{"user add --jsno a", "error: unknown option --jsno\nhint: Did you mean --json? Run vpn-demo user add --help for all options.\n"},
		{"--confgi x run", "error: unknown option --confgi\nhint: Did you mean --config? Run vpn-demo --help for all options.\n"},
		{"user add a --days many", "error: invalid value \"many\" for flag -days: parse error\nhint: Run vpn-demo user add --help.\n"},
		{"statsu", "error: unknown command \"statsu\"\nhint: Did you mean \"status\"? Run vpn-demo --help for all commands.\n"},
		{"user ad", "error: unknown command \"ad\"\nhint: Did you mean \"add\"? Run vpn-demo user --help for all commands.\n"},
		{"completion tcsh", "error: no completion for the shell \"tcsh\"\nhint: There are scripts for bash, zsh and fish.\n"},
		{"need", "error: --name is missing\nhint: Run vpn-demo need --help.\n"},
		{"", "error: which command?\nhint: The list above names them.\n"},
		{"user", "error: which command?\nhint: The list above names them.\n"},
	} {
		code, saw, _, stderr := run(strings.Fields(tt.line)...)
		if code != ExitUsage || stderr != tt.want || saw != "" {
			t.Errorf("%q: exit %d, ran %q\n got %s\nwant %s", tt.line, code, saw, stderr, tt.want)
		}
	}
	if _, saw, _, _ := run("need", "--name", "x"); !strings.HasPrefix(saw, "vpn-demo need") {
		t.Errorf("a required option was not enough: %q", saw)
	}
	code, _, stdout, stderr := run("fail")
	if code != ExitNotConnected || stdout != "" || !strings.HasPrefix(stderr, "error: All addresses of the pool are in use: 10.0.0.0/30\nhint: Enlarge the pool") {
		t.Errorf("fail: exit %d\n%s%s", code, stdout, stderr)
	}
}

func TestHelp(t *testing.T) {
	for _, tt := range []struct {
		line string
		want []string
		not  []string
	}{
		{"--help", []string{"vpn-demo - a gateway for tests", "{{braces}}", "EXAMPLES:\n   # Start it\n   vpn-demo run\n", "status", "completion"}, []string{"fail", "   man "}},
		{"user --help", []string{"Users are people.", "EXAMPLES:\n   # Who is there\n   vpn-demo user list", "add a user"}, []string{"\x00"}},
		{"user add --help", []string{"vpn-demo user add - add a user", "Adds {{one}}.", "   # Add alice\n   vpn-demo user add alice\n   vpn-demo user add\n   bob\n", "--days N"}, []string{"\x00"}},
		{"help user", []string{"Users are people."}, nil},
		{"status --help", []string{"--json"}, []string{"DESCRIPTION", "default: false"}},
		{"--version", []string{"vpn-demo version "}, nil},
		{"completion --help", []string{"source <(vpn-demo completion bash)"}, nil},
	} {
		code, saw, stdout, stderr := run(strings.Fields(tt.line)...)
		if code != ExitOK || saw != "" || stderr != "" {
			t.Errorf("%s: exit %d, %s%s", tt.line, code, saw, stderr)
		}
		for _, want := range tt.want {
			if !strings.Contains(stdout, want) {
				t.Errorf("%s: no %q in\n%s", tt.line, want, stdout)
			}
		}
		for _, not := range tt.not {
			if strings.Contains(stdout, not) {
				t.Errorf("%s: %q in\n%s", tt.line, not, stdout)
			}
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, ExitOK},
		{errors.New("x"), ExitFailure},
		{fmt.Errorf("x: %w", Exitf(42, "y")), 42},
		{&Error{Message: "status", Err: &control.Error{Code: reason.NotRunning}}, ExitNotRunning},
		{&control.Error{Code: reason.AuthFailedPSK}, ExitNotConnected},
		{&control.Error{Code: reason.NoAnswer}, ExitTimeout},
		{&control.Error{Code: reason.NotFound}, ExitNotFound},
		{&control.Error{Code: "from-the-future"}, ExitFailure},
		{reason.New(reason.PeerDead, ""), ExitNotConnected},
		{config.Decode("x", []byte("a"), &struct{}{}), ExitUsage},
		{context.Canceled, ExitInterrupted},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), ExitTimeout},
		{fs.ErrPermission, ExitPermission},
		{urfave.Exit("x", 9), 9},
		{Unstartable(nil), ExitOK},
		{Unstartable(Exitf(ExitUsage, "x")), ExitConfig},
		{Unstartable(config.Decode("x", []byte("a"), &struct{}{})), ExitConfig},
		{Unstartable(reason.New(reason.ConfigInvalid, "x")), ExitConfig},
		{Unstartable(fs.ErrPermission), ExitPermission},
	} {
		if got := ExitCode(tt.err); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.err, got, tt.want)
		}
	}
	// Every reason has an exit code that is documented.
	for _, r := range reason.All() {
		code := ExitCode(&control.Error{Code: r.Code})
		if !slices.ContainsFunc(exitCodes, func(e struct {
			code    int
			meaning string
		}) bool {
			return e.code == code
		}) {
			t.Errorf("%s: exit %d", r.Code, code)
		}
	}
}

func TestPrintError(t *testing.T) {
	two := config.Decode("f.toml", []byte("a = 1\nb = 2"), &struct{}{})
	for _, tt := range []struct {
		err  error
		want string
	}{
		{two, "error: f.toml:1: unknown key \"a\" at the top level\nerror: f.toml:2: unknown key \"b\" at the top level\n"},
		{config.Decode("f.toml", []byte("a = 'x"), &struct{}{}), "error: f.toml:1:6: unexpected EOF; expected \"'\"\n    a = 'x\n"},
		{Exitf(1, "evil \x1b[2J name").WithHint("do\u202e it"), "error: evil ?[2J name\nhint: do? it\n"},
		{&control.Error{Message: "m", Hint: "h"}, "error: m\nhint: h\n"},
		{&control.Error{Message: "m", Code: reason.IDMismatch}, "error: m\nhint: " + reason.IDMismatch.Hint() + "\n"},
		{fmt.Errorf("open x: %w", fs.ErrPermission), "error: open x: permission denied\nhint: Run the command as root (sudo).\n"},
		{&Error{Message: "read the file", Err: io.EOF}, "error: read the file: EOF\n"},
	} {
		var b strings.Builder
		PrintError(&b, tt.err)
		if b.String() != tt.want {
			t.Errorf("got  %q\nwant %q", b.String(), tt.want)
		}
	}
}

func TestTablesAndFields(t *testing.T) {
	table := NewTable("name", "address")
	table.Row("alice", "10.0.0.1")
	table.Row("bo\tb\x1b[0m")
	table.Row("", nil)
	var b strings.Builder
	if err := table.Print(&b); err != nil {
		t.Fatal(err)
	}
	if want := "NAME      ADDRESS\nalice     10.0.0.1\nbo?b?[0m  -\n-         -\n"; b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
	if table.Len() != 3 {
		t.Errorf("%d rows", table.Len())
	}
	var f Fields
	f.Add("State", "connected")
	f.Add("Nothing", "")
	f.Add("Nil", nil)
	f.Add("Round trip", "3 ms")
	b.Reset()
	f.Print(&b)
	if want := "State:       connected\nRound trip:  3 ms\n"; b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
	b.Reset()
	PrintJSON(&b, map[string]string{"a": "<b>"})
	if b.String() != "{\n  \"a\": \"<b>\"\n}\n" {
		t.Errorf("JSON: %s", b.String())
	}
}

func TestVersion(t *testing.T) {
	if Version() == "" {
		t.Error("no version")
	}
	revision := []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "true"}}
	for want, info := range map[string]*debug.BuildInfo{
		"1.2.3":                       {Main: debug.Module{Version: "v1.2.3"}},
		"devel-0123456789ab-modified": {Main: debug.Module{Version: "(devel)"}, Settings: revision},
		"devel-0123456789ab":          {Settings: revision[:1]},
		"unknown":                     {},
	} {
		if got := versionFrom(info); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestManPage(t *testing.T) {
	code, _, page, stderr := run("man")
	if code != ExitOK {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	for _, want := range []string{
		".TH VPN-DEMO 8", "\\fIFILE\\fP", ".SS vpn-demo run", ".SH NAME", ".SH EXIT STATUS", ".SH FILES", ".SH EXAMPLES", "vpn-demo user add USER", "vpn-demo user add alice", "{{braces}}",
		"The daemon is not running", "/etc/wayfarer/demo.toml", "vpn-client(8)",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in the page", want)
		}
	}
	if strings.Contains(page, "\x00") || strings.Contains(page, "SS vpn-demo fail") {
		t.Error("the page shows what is hidden")
	}
	if groff, err := exec.LookPath("groff"); err == nil {
		lint := exec.Command(groff, "-man", "-Tascii", "-ww", "-z")
		lint.Stdin = strings.NewReader(page)
		if out, err := lint.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("groff: %v\n%s", err, out)
		}
	}
}

// TestMain lets the test binary be the demo, for the completion of real shells.
func TestMain(m *testing.M) {
	if os.Getenv("BE_VPN_DEMO") == "1" {
		var saw strings.Builder
		os.Exit(Run(context.Background(), demo(&saw), os.Args))
	}
	os.Exit(m.Run())
}

func TestCompletionInShells(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := fmt.Sprintf("#!/bin/sh\nBE_VPN_DEMO=1 exec %q \"$@\"\n", self)
	if err := os.WriteFile(filepath.Join(dir, "vpn-demo"), []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("needs bash")
	}
	for _, tt := range []struct {
		words []string // the last one is being completed
		want  string
	}{
		{[]string{"vpn-demo", "st"}, "status"},
		{[]string{"vpn-demo", "user", ""}, "add help h"},
		{[]string{"vpn-demo", "user", "add", "al"}, "alice alfred"},
		{[]string{"vpn-demo", "user", "add", "--d"}, "--days"},
		{[]string{"vpn-demo", "--co"}, "--config"},
		{[]string{"vpn-demo", "completion", ""}, "bash zsh fish"},
		{[]string{"vpn-demo", "nonsense", "x"}, ""},
	} {
		script := `PATH="$1:$PATH"; shift; source <(vpn-demo completion bash)
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _vpn_demo_complete; echo "${COMPREPLY[*]}"`
		out, err := exec.Command(bash, append([]string{"-c", script, "bash", dir}, tt.words...)...).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != tt.want {
			t.Errorf("%q: %q, %v; want %q", tt.words, got, err, tt.want)
		}
	}
	for _, shell := range []string{"zsh", "fish"} {
		path, err := exec.LookPath(shell)
		if err != nil {
			continue
		}
		_, _, script, _ := run("completion", shell)
		check := exec.Command(path, "-n")
		check.Stdin = strings.NewReader(script)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", shell, err, out)
		}
	}
}

func TestHelpFitsTheScreen(t *testing.T) {
	words := strings.Repeat("words of some length ", 20)
	app := New(Info{Name: "vpn-demo", Usage: "x", Description: words, Commands: []*urfave.Command{{Name: "a", Usage: "x", Description: Describe(words)}}})
	for _, args := range [][]string{{"vpn-demo", "--help"}, {"vpn-demo", "a", "--help"}} {
		var out bytes.Buffer
		app.Writer = &out
		if code := Run(context.Background(), app, args); code != ExitOK {
			t.Fatalf("exit %d", code)
		}
		if strings.Count(out.String(), "words") != 20 {
			t.Errorf("words are missing in\n%s", out.String())
		}
		for line := range strings.Lines(out.String()) {
			if len(line) > lineWidth+1 {
				t.Errorf("%d columns: %s", len(line), line)
			}
		}
	}
	if got := wrap("a\n  kept  as it is\n\nb"); got != "a\n  kept  as it is\n\nb" {
		t.Errorf("%q", got)
	}
}

// The README's table of exit codes is the one that the programs follow.
func TestReadmeHasTheExitCodes(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range exitCodes {
		meaning := strings.TrimSuffix(strings.ToLower(e.meaning[:1])+e.meaning[1:], ".")
		if line := fmt.Sprintf("| %d | %s |\n", e.code, meaning); !strings.Contains(string(readme), line) {
			t.Errorf("the README lacks %q", line)
		}
	}
}
