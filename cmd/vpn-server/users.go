package main

import (
	"fmt"
	"io"
	"os"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/wayfarer-vpn/wayfarer/internal/cli"
	"github.com/wayfarer-vpn/wayfarer/pki"
	"github.com/wayfarer-vpn/wayfarer/server"
)

const (
	hoursPerDay = 24 * time.Hour
	// maxDays is a hundred years: no certificate outlives its authority anyway.
	maxDays = 36500
)

func userCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "user",
		Usage: "manage who may connect",
		Subcommands: []*urfave.Command{
			userAddCommand(), userListCommand(),
			userEndCommand("remove", "end a user's access, for instance when somebody leaves", pki.CessationOfOperation),
			userEndCommand("revoke", "end a user's access since the key is lost or known to others", pki.KeyCompromise),
		},
	}
}

func userAddCommand() *urfave.Command {
	return &urfave.Command{
		Name:      "add",
		Usage:     "let somebody in: make credentials and a profile",
		ArgsUsage: "NAME",
		Description: cli.Describe("The profile is one file with everything a client needs, its private key included: hand it over in confidence. The running gateway knows the user at once.",
			cli.Example{Command: "vpn-server user add alice", Does: "A user with a certificate"},
			cli.Example{Command: "vpn-server user add contractor --days 30", Does: "For a month"},
			cli.Example{Command: "vpn-server user add phone --psk", Does: "A user with a pre-shared key"},
			cli.Example{Command: "vpn-server user add alice --replace", Does: "New credentials; the old ones end"}),
		Flags: []urfave.Flag{
			&urfave.IntFlag{Name: "days", Usage: "the certificate is valid for `N` days"},
			&urfave.StringFlag{Name: "id", Usage: "the user's `IDENTITY`, an e-mail address or a domain name (default: NAME@gateway)"},
			&urfave.BoolFlag{Name: "psk", Usage: "a pre-shared key instead of a certificate"},
			&urfave.StringFlag{Name: "key-type", Usage: "`TYPE` of the key: ecdsa-p256, ecdsa-p384, ed25519, rsa2048, rsa3072, rsa4096", Value: string(pki.DefaultKeyType)},
			&urfave.BoolFlag{Name: "replace", Usage: "replace the user's credentials"},
			cli.JSONFlag(),
		},
		Action: func(c *urfave.Context) error {
			args, err := cli.Args(c, "NAME")
			if err != nil {
				return err
			}
			keyType, err := pki.ParseKeyType(c.String("key-type"))
			if err != nil {
				return cli.Usagef("%v", err)
			}
			if days := c.Int("days"); c.IsSet("days") && (days < 1 || days > maxDays) {
				return cli.Usagef("--days must be from 1 to %d", maxDays)
			}
			admin, err := server.OpenAdmin(c.String(flagConfig))
			if err != nil {
				return configError(c, err)
			}
			u, err := admin.AddUser(args[0], server.UserOptions{
				Identity: c.String("id"), SharedKey: c.Bool("psk"), KeyType: keyType,
				Lifetime: time.Duration(c.Int("days")) * hoursPerDay, Replace: c.Bool("replace"),
			})
			if err != nil {
				return err
			}
			tell(c)
			return cli.Print(c, u, func(w io.Writer) error { return printNewUser(w, u, configOption(c)) })
		},
	}
}

func printNewUser(w io.Writer, u *server.User, option string) error {
	fmt.Fprintf(w, "User %s (%s) may connect", u.Name, u.Identity)
	if u.Expires != nil {
		fmt.Fprintf(w, " until %s", u.Expires.Format(time.DateOnly))
	}
	fmt.Fprintf(w, ".\nProfile: %s\n\nIt holds the user's key: hand it over in confidence, for instance\n", u.Profile)
	fmt.Fprintf(w, "  vpn-server profile export %s%s --output %s.toml\nand on the laptop\n  vpn-client import %s.toml && vpn-client up %s\n", u.Name, option, u.Name, u.Name, u.Name)
	return nil
}

// configOption repeats the option --config in a command that is suggested.
func configOption(c *urfave.Context) string {
	return configOptionFor(c.String(flagConfig))
}

func userListCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "list",
		Usage: "list users",
		Description: cli.Describe("",
			cli.Example{Command: "vpn-server user list", Does: "Who may connect"},
			cli.Example{Command: "vpn-server user list --all --json", Does: "Also whose access has ended, for programs"}),
		Flags: []urfave.Flag{cli.JSONFlag(), &urfave.BoolFlag{Name: "all", Usage: "also those whose access has ended"}},
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c); err != nil {
				return err
			}
			admin, err := server.OpenAdmin(c.String(flagConfig))
			if err != nil {
				return configError(c, err)
			}
			users, err := admin.Users()
			if err != nil {
				return err
			}
			shown := []server.User{}
			for _, u := range users {
				if u.State != server.UserRevoked || c.Bool("all") {
					shown = append(shown, u)
				}
			}
			return cli.Print(c, shown, func(w io.Writer) error {
				t := cli.NewTable("name", "identity", "kind", "state", "expires")
				for _, u := range shown {
					t.Row(u.Name, u.Identity, u.Kind, u.State, day(u.Expires))
				}
				return t.Print(w)
			})
		},
	}
}

func day(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format(time.DateOnly)
}

func userEndCommand(name, usage string, why pki.Reason) *urfave.Command {
	cmd := &urfave.Command{
		Name:      name,
		Usage:     usage,
		ArgsUsage: "NAME",
		Description: cli.Describe("The certificate is revoked, or the pre-shared key forgotten; a running gateway ends the user's sessions at once. If nobody is called so, NAME may be the user's identity.",
			cli.Example{Command: "vpn-server user " + name + " alice"}),
		Flags: []urfave.Flag{cli.JSONFlag()},
		Action: func(c *urfave.Context) error {
			args, err := cli.Args(c, "NAME")
			if err != nil {
				return err
			}
			admin, err := server.OpenAdmin(c.String(flagConfig))
			if err != nil {
				return configError(c, err)
			}
			u, err := admin.EndUser(args[0], why)
			if err != nil {
				return err
			}
			tell(c)
			return cli.Print(c, u, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "User %s (%s) may not connect any more.\n", u.Name, u.Identity)
				return err
			})
		},
	}
	return cli.Complete(cmd, activeUsers)
}

// activeUsers completes names of users.
func activeUsers(c *urfave.Context) []string {
	admin, err := server.OpenAdmin(c.String(flagConfig))
	if err != nil {
		return nil
	}
	users, err := admin.Users()
	if err != nil {
		return nil
	}
	var names []string
	for _, u := range users {
		if u.State == server.UserActive {
			names = append(names, u.Name)
		}
	}
	return names
}

func profileCommand() *urfave.Command {
	export := &urfave.Command{
		Name:      "export",
		Usage:     "print a user's profile",
		ArgsUsage: "NAME",
		Description: cli.Describe("It holds the user's private key or pre-shared key.",
			cli.Example{Command: "vpn-server profile export alice --output alice.toml", Does: "Into a file that others cannot read"},
			cli.Example{Command: "vpn-server profile export alice --output alice.toml --forget", Does: "Keep no copy of the key here"}),
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write it to `FILE`, readable by its owner only; - is standard output"},
			&urfave.BoolFlag{Name: "forget", Usage: "remove it here afterwards"},
		},
		Action: exportProfile,
	}
	return &urfave.Command{Name: "profile", Usage: "hand out profiles", Subcommands: []*urfave.Command{cli.Complete(export, activeUsers)}}
}

func exportProfile(c *urfave.Context) error {
	args, err := cli.Args(c, "NAME")
	if err != nil {
		return err
	}
	admin, err := server.OpenAdmin(c.String(flagConfig))
	if err != nil {
		return configError(c, err)
	}
	data, err := admin.Profile(args[0])
	if err != nil {
		return err
	}
	defer clear(data)
	if c.IsSet("output") && c.String("output") == "" {
		return cli.Usagef("--output is empty: name a file, or - for standard output")
	}
	if err := writeSecret(c.App.Writer, c.String("output"), data); err != nil {
		return err
	}
	if c.Bool("forget") {
		return admin.ForgetProfile(args[0])
	}
	return nil
}

// tell makes a running gateway see what has changed. If none runs, the next start will.
func tell(c *urfave.Context) {
	if err := reload(c); err != nil && cli.ExitCode(err) != cli.ExitNotRunning {
		fmt.Fprintf(errorWriter(c), "warning: the change is kept, but the running gateway does not know it yet: %v\n", err)
	}
}

func errorWriter(c *urfave.Context) io.Writer {
	if c.App.ErrWriter != nil {
		return c.App.ErrWriter
	}
	return os.Stderr
}
