package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/wayfarer-vpn/wayfarer/internal/cli"
	"github.com/wayfarer-vpn/wayfarer/pki"
	"github.com/wayfarer-vpn/wayfarer/server"
)

func certCommand() *urfave.Command {
	return &urfave.Command{
		Name:        "cert",
		Usage:       "look after certificates",
		Subcommands: []*urfave.Command{certListCommand(), certRenewCommand()},
	}
}

func certListCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "list",
		Usage: "list the certificates that the gateway's authority has issued",
		Description: cli.Describe("Of users and of the gateway, revoked and expired ones included.",
			cli.Example{Command: "vpn-server cert list", Does: "For people"},
			cli.Example{Command: "vpn-server cert list --json | jq -r '.[].serial'", Does: "For scripts"}),
		Flags: []urfave.Flag{cli.JSONFlag()},
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c); err != nil {
				return err
			}
			admin, err := server.OpenAdmin(c.String(flagConfig))
			if err != nil {
				return configError(c, err)
			}
			list, err := admin.Certificates()
			if err != nil {
				return err
			}
			return cli.Print(c, list, func(w io.Writer) error { return printCertificates(w, list, time.Now()) })
		},
	}
}

func printCertificates(w io.Writer, list []pki.Certificate, now time.Time) error {
	t := cli.NewTable("serial", "kind", "name", "identities", "key", "expires", "state")
	for _, c := range list {
		state := "good"
		switch {
		case c.Revoked():
			state = "revoked " + c.RevokedAt.Format(time.DateOnly)
		case now.After(c.NotAfter):
			state = "expired"
		case c.NotAfter.Sub(now) < server.ExpiryNotice:
			state = "expires soon"
		}
		t.Row(c.Serial, c.Kind, c.Name, strings.Join(c.Identities, ","), c.KeyType, c.NotAfter.Format(time.DateOnly), state)
	}
	return t.Print(w)
}

func certRenewCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "renew",
		Usage: "issue the gateway's certificate anew",
		Description: cli.Describe("For the names and addresses that the configuration has now, with a new key. Profiles stay valid; the running gateway uses it at once. For a user's certificate see user add --replace.",
			cli.Example{Command: "vpn-server cert renew"}),
		Flags: []urfave.Flag{&urfave.StringFlag{Name: "key-type", Usage: "`TYPE` of the new key", Value: string(pki.DefaultKeyType)}, cli.JSONFlag()},
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c); err != nil {
				return err
			}
			keyType, err := pki.ParseKeyType(c.String("key-type"))
			if err != nil {
				return cli.Usagef("%v", err)
			}
			admin, err := server.OpenAdmin(c.String(flagConfig))
			if err != nil {
				return configError(c, err)
			}
			issued, err := admin.RenewCertificate(keyType)
			if err != nil {
				return err
			}
			tell(c)
			return cli.Print(c, issued, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "The gateway's certificate for %s is valid until %s.\n", strings.Join(issued.Identities, ", "), issued.NotAfter.Format(time.DateOnly))
				return err
			})
		},
	}
}

func crlCommand() *urfave.Command {
	return &urfave.Command{
		Name:        "crl",
		Usage:       "print the revocation list of the gateway's authority",
		Description: cli.Describe("In PEM, for other gateways that trust the same authority.", cli.Example{Command: "vpn-server crl > crl.pem"}),
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c); err != nil {
				return err
			}
			admin, err := server.OpenAdmin(c.String(flagConfig))
			if err != nil {
				return configError(c, err)
			}
			crl, err := admin.RevocationList()
			if errors.Is(err, pki.ErrNotRenewed) {
				fmt.Fprintf(errorWriter(c), "warning: %v\n", err)
			} else if err != nil {
				return err
			}
			_, err = c.App.Writer.Write(crl)
			return err
		},
	}
}
