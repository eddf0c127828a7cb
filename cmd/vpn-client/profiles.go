package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/wayfarer-vpn/wayfarer/client"
	"github.com/wayfarer-vpn/wayfarer/internal/cli"
	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/internal/profile"
)

func importCommand() *urfave.Command {
	return &urfave.Command{
		Name:      "import",
		Usage:     "take in a profile",
		ArgsUsage: "FILE",
		Description: cli.Describe("The profile is checked and stored where only root can read it. Certificates and keys that it names as files are taken into it. "+
			"The file itself is left alone: delete it when it is not needed any more, it holds a secret.",
			cli.Example{Command: "vpn-client import alice.toml", Does: "Under the name in the profile"},
			cli.Example{Command: "vpn-client import alice.toml --name office", Does: "Under another name"}),
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "name", Usage: "call it `NAME`"},
			&urfave.BoolFlag{Name: "force", Usage: "replace a profile of the same name"},
			dirFlag(), cli.JSONFlag(),
		},
		Action: importProfile,
	}
}

func importProfile(c *urfave.Context) error {
	args, err := cli.Args(c, "FILE")
	if err != nil {
		return err
	}
	s, err := store(c)
	if err != nil {
		return err
	}
	p, warnings, err := s.Import(args[0], c.String("name"), c.Bool("force"), time.Now())
	if err != nil {
		return err
	}
	printWarnings(c, warnings)
	return cli.Print(c, profileInfo(p), func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "imported %s (gateway %s)\nconnect with: vpn-client up %s\n", p.Name, strings.Join(p.Server, ", "), p.Name)
		return err
	})
}

// info is what "list" tells of a profile.
type info struct {
	Name      string   `json:"name"`
	Server    []string `json:"server"`
	ID        string   `json:"id,omitempty"`
	Auth      string   `json:"auth"`
	Routes    string   `json:"routes"`
	Reconnect bool     `json:"reconnect"`
	Error     string   `json:"error,omitempty"`
}

func profileInfo(p *profile.Profile) info {
	routes := "server"
	if !p.Tunnel.Routes.FromServer {
		var words []string
		for _, n := range p.Tunnel.Routes.List {
			words = append(words, n.String())
		}
		routes = strings.Join(words, ", ")
		if p.Tunnel.Routes.Full() {
			routes = "full"
		}
	}
	return info{Name: p.Name, Server: p.Server, ID: p.ID, Auth: string(p.Method()), Routes: routes, Reconnect: p.Reconnect}
}

func listCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "list",
		Usage: "list the profiles",
		Description: cli.Describe("One that cannot be used any more is told as such.",
			cli.Example{Command: "vpn-client list", Does: "For people"},
			cli.Example{Command: "vpn-client list --json | jq -r .[].name", Does: "For scripts"}),
		Flags:  []urfave.Flag{dirFlag(), cli.JSONFlag()},
		Action: listProfiles,
	}
}

func listProfiles(c *urfave.Context) error {
	if _, err := cli.Args(c); err != nil {
		return err
	}
	s, err := store(c)
	if err != nil {
		return err
	}
	names, err := s.Names()
	if err != nil {
		return err
	}
	list := []info{}
	for _, name := range names {
		p, _, err := s.Load(name, time.Now())
		if err != nil {
			list = append(list, info{Name: name, Server: []string{}, Error: err.Error()})
			continue
		}
		list = append(list, profileInfo(p))
		p.Zero()
	}
	return cli.Print(c, list, func(w io.Writer) error { return printProfiles(w, s, list) })
}

func printProfiles(w io.Writer, s client.Store, list []info) error {
	if len(list) == 0 {
		_, err := fmt.Fprintf(w, "no profiles in %s; take one in with vpn-client import FILE\n", s.Dir)
		return err
	}
	t := cli.NewTable("name", "gateway", "identity", "auth", "routes")
	for _, i := range list {
		if i.Error != "" {
			t.Row(i.Name, "cannot be used, see vpn-client check "+i.Name)
			continue
		}
		t.Row(i.Name, strings.Join(i.Server, ","), i.ID, i.Auth, i.Routes)
	}
	return t.Print(w)
}

func removeCommand() *urfave.Command {
	return &urfave.Command{
		Name:        "remove",
		Aliases:     []string{"rm"},
		Usage:       "delete a profile",
		ArgsUsage:   "NAME",
		Description: cli.Describe("A tunnel that is up with the profile stays up.", cli.Example{Command: "vpn-client remove office", Does: "Delete the profile called office"}),
		Flags:       []urfave.Flag{dirFlag()},
		Action: func(c *urfave.Context) error {
			args, err := cli.Args(c, "NAME")
			if err != nil {
				return err
			}
			s, err := store(c)
			if err != nil {
				return err
			}
			return s.Remove(args[0])
		},
	}
}

func checkCommand() *urfave.Command {
	return &urfave.Command{
		Name:      "check",
		Usage:     "check a profile or a configuration",
		ArgsUsage: "[FILE or NAME]",
		Description: cli.Describe("Everything that is wrong is told at once, with its line. Without an argument the daemon's configuration and all stored profiles are checked.",
			cli.Example{Command: "vpn-client check alice.toml", Does: "A profile in a file"},
			cli.Example{Command: "vpn-client check office", Does: "A stored profile"},
			cli.Example{Command: "vpn-client check", Does: "Everything"},
			cli.Example{Command: "vpn-client check --json", Does: "For programs: what was checked, when all of it is fine"}),
		Flags:  []urfave.Flag{dirFlag(), cli.JSONFlag()},
		Action: check,
	}
}

func check(c *urfave.Context) error {
	args, err := cli.Args(c, "[FILE or NAME]")
	if err != nil {
		return err
	}
	if len(args) == 1 {
		return checkOne(c, args[0])
	}
	_, warnings, err := loadConfig(c)
	if err != nil {
		return err
	}
	printWarnings(c, warnings)
	s, err := store(c)
	if err != nil {
		return err
	}
	names, err := s.Names()
	if err != nil {
		return err
	}
	var failed error
	for _, name := range names {
		_, warnings, err := s.Load(name, time.Now())
		printWarnings(c, warnings)
		if err != nil {
			cli.PrintError(c.App.ErrWriter, err)
			failed = &cli.Error{Code: cli.ExitUsage, Message: "not all profiles can be used"}
		}
	}
	if failed != nil {
		return failed
	}
	return cli.Print(c, checked{OK: true, Profiles: append([]string{}, names...)}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "the configuration and %d profiles are fine\n", len(names))
		return err
	})
}

// checkOne checks a file, or a stored profile if there is no such file; a directory is
// none.
func checkOne(c *urfave.Context, what string) error {
	var warnings []string
	found, err := os.Stat(what)
	switch {
	case (err != nil || found.IsDir()) && profile.CheckName(what) == nil:
		s, serr := store(c)
		if serr != nil {
			return serr
		}
		_, warnings, err = s.Load(what, time.Now())
	case isDaemonConfig(what):
		_, warnings, err = client.LoadConfig(what, false, time.Now())
	default:
		_, warnings, err = client.LoadProfile(what, time.Now())
	}
	if err != nil {
		return err
	}
	printWarnings(c, warnings)
	return cli.Print(c, checked{OK: true, Checked: what}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s is fine\n", what)
		return err
	})
}

// checked is what "check" tells of what is fine: one thing, or all stored profiles.
type checked struct {
	OK       bool     `json:"ok"`
	Checked  string   `json:"checked,omitempty"`
	Profiles []string `json:"profiles,omitempty"`
}

// isDaemonConfig tells a configuration of the daemon from a profile: a profile names
// a server at its top level.
func isDaemonConfig(path string) bool {
	var anything struct{}
	doc, _ := config.Load(path, &anything)
	return doc != nil && !doc.Defined("server") && !doc.Defined("auth")
}

func printWarnings(c *urfave.Context, warnings []string) {
	for _, w := range warnings {
		fmt.Fprintf(c.App.ErrWriter, "warning: %s\n", cli.Clean(w))
	}
}
