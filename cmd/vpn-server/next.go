package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/wayfarer-vpn/wayfarer/server"
)

// printNext says what comes after a setup. The unit of the packages reads the default
// configuration only.
func printNext(w io.Writer, r *server.SetupResult) {
	option := configOptionFor(r.Config)
	fmt.Fprint(w, "\nNext:\n")
	switch lines := dropIn(r.StateDir); {
	case option != "":
		fmt.Fprintf(w, "  vpn-server run%s\n", option)
	case len(lines) == 0:
		fmt.Fprint(w, "  vpn-server run          # or: systemctl enable --now vpn-server\n")
	default:
		fmt.Fprintf(w, "  vpn-server run          # or as a service, which may write to %s only by itself:\n", server.DefaultStateDir)
		fmt.Fprintf(w, "  systemctl edit vpn-server      # add\n    [Service]\n    %s\n", strings.Join(lines, "\n    "))
		fmt.Fprint(w, "  systemctl enable --now vpn-server\n")
	}
	fmt.Fprintf(w, "  vpn-server user add alice%s\n", option)
	fmt.Fprintln(w, "UDP ports 500 and 4500 must reach this machine.")
}

// dropIn is what the unit needs to use a state directory (systemd.exec(5)): it has
// ProtectSystem=strict, ProtectHome=yes and PrivateTmp=yes.
func dropIn(stateDir string) []string {
	if within(stateDir, server.DefaultStateDir) {
		return nil
	}
	var out []string
	switch {
	case within(stateDir, "/home"), within(stateDir, "/root"), within(stateDir, "/run/user"):
		out = append(out, "ProtectHome=read-only")
	case within(stateDir, "/tmp"), within(stateDir, "/var/tmp"):
		out = append(out, "PrivateTmp=no")
	}
	path := strings.ReplaceAll(stateDir, "%", "%%") // % begins a specifier
	if strings.ContainsAny(path, " \t\"'\\") {
		path = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(path) + `"`
	}
	return append(out, "ReadWritePaths="+path)
}

func within(path, dir string) bool {
	rest, err := filepath.Rel(dir, path)
	return err == nil && rest != ".." && !strings.HasPrefix(rest, "../")
}

// configOptionFor is the option that names a configuration in a command that is
// suggested; the default needs none.
func configOptionFor(file string) string {
	if file == server.DefaultConfigFile {
		return ""
	}
	return " --config " + shellWord(file)
}

// shellWord quotes text for a shell where that is needed.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%,", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
