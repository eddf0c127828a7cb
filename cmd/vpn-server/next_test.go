package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/server"
)

// The service is recommended where it would work, with what it needs for that.
func TestNextAfterSetup(t *testing.T) {
	for _, tc := range []struct {
		config, state string
		want, wantNot []string
	}{
		{server.DefaultConfigFile, server.DefaultStateDir, []string{"systemctl enable --now vpn-server", "  vpn-server run  ", "user add alice\n"}, []string{"ReadWritePaths", "--config"}},
		{server.DefaultConfigFile, server.DefaultStateDir + "/office", []string{"systemctl enable"}, []string{"ReadWritePaths"}},
		{server.DefaultConfigFile, server.DefaultStateDir + "2", []string{"systemctl enable", "systemctl edit", "[Service]\n    ReadWritePaths=/var/lib/wayfarer2\n"}, []string{"ProtectHome", "PrivateTmp"}},
		{server.DefaultConfigFile, `/srv/100% "vpn"`, []string{`ReadWritePaths="/srv/100%% \"vpn\""`}, nil},
		{server.DefaultConfigFile, "/root/vpn", []string{"ProtectHome=read-only\n    ReadWritePaths=/root/vpn"}, nil},
		{server.DefaultConfigFile, "/tmp/vpn", []string{"PrivateTmp=no\n    ReadWritePaths=/tmp/vpn"}, nil},
		{"/srv/a b/server.toml", server.DefaultStateDir, []string{"vpn-server run --config '/srv/a b/server.toml'\n", "user add alice --config '/srv/a b/server.toml'\n"}, []string{"systemctl"}},
	} {
		var b strings.Builder
		printNext(&b, &server.SetupResult{Config: tc.config, StateDir: tc.state})
		for _, s := range tc.want {
			if !strings.Contains(b.String(), s) {
				t.Errorf("%s, %s: no %q in\n%s", tc.config, tc.state, s, b.String())
			}
		}
		for _, s := range tc.wantNot {
			if strings.Contains(b.String(), s) {
				t.Errorf("%s, %s: %q in\n%s", tc.config, tc.state, s, b.String())
			}
		}
	}
}

// The unit is as the advice supposes.
func TestUnitThatTheAdviceIsFor(t *testing.T) {
	unit, err := os.ReadFile("../../packaging/server/vpn-server.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes", "StateDirectory=" + filepath.Base(server.DefaultStateDir), "ExecStart=/usr/bin/vpn-server run"} {
		if !strings.Contains(string(unit), "\n"+line+"\n") {
			t.Errorf("the unit has no line %s", line)
		}
	}
}

// A shell reads back what was quoted for it.
func TestShellWord(t *testing.T) {
	for _, s := range []string{"", "/etc/wayfarer/server.toml", "a b", "it's", `"$HOME"`, "`id`", "a\nb", "*", "~", "é"} {
		out, err := exec.Command("sh", "-c", "printf %s "+shellWord(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("%q became %q: %v", s, out, err)
		}
	}
}
