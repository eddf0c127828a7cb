package main

import (
	"fmt"
	"io"
	"net/netip"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/wayfarer-vpn/wayfarer/internal/cli"
	"github.com/wayfarer-vpn/wayfarer/pki"
	"github.com/wayfarer-vpn/wayfarer/server"
)

func initCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "init",
		Usage: "make a gateway: authority, certificate, configuration",
		Description: cli.Describe("It changes nothing of the network; \"run\" does. An existing gateway is not overwritten; with --force its configuration, authority, users and profiles keep their names with the time added.",
			cli.Example{Command: "vpn-server init --name vpn.example.org --address 203.0.113.1", Does: "A gateway with its public address"},
			cli.Example{Command: "vpn-server init --name vpn.example.org --address 203.0.113.1 --address 2001:db8::1 --key-type ed25519", Does: "With two addresses and Ed25519 keys"}),
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "name", Usage: "the `NAME` that clients know the gateway by: a DNS name, or its address", Required: true},
			&urfave.StringSliceFlag{Name: "address", Usage: "an `ADDRESS` or name where clients reach it; may be repeated (default: the name)"},
			&urfave.StringFlag{Name: "key-type", Usage: "`TYPE` of keys: ecdsa-p256, ecdsa-p384, ed25519, rsa2048, rsa3072, rsa4096", Value: string(pki.DefaultKeyType)},
			&urfave.StringFlag{Name: "pool4", Usage: "IPv4 `NETWORK` for clients' addresses (default: one that is free here)"},
			&urfave.StringFlag{Name: "pool6", Usage: "IPv6 `NETWORK` for clients' addresses (default: a random unique local one)"},
			&urfave.StringSliceFlag{Name: "dns", Usage: "name server `ADDRESS` for clients; may be repeated (default: those of this machine)"},
			&urfave.StringFlag{Name: "dir", Usage: "`DIRECTORY` of the configuration", Value: "/etc/wayfarer"},
			&urfave.StringFlag{Name: "state", Usage: "`DIRECTORY` of authority, users and leases", Value: server.DefaultStateDir},
			&urfave.BoolFlag{Name: "force", Usage: "make a new gateway in place of an existing one, whose files are moved aside; its users need new profiles"},
			cli.JSONFlag(),
		},
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c); err != nil {
				return err
			}
			if c.IsSet(flagConfig) {
				return cli.Usagef("init makes a configuration: name its directory with --dir, not --%s", flagConfig)
			}
			o, err := setupOptions(c)
			if err != nil {
				return err
			}
			result, err := server.Setup(o)
			if err != nil {
				return err
			}
			return cli.Print(c, result, func(w io.Writer) error { return printSetup(w, result) })
		},
	}
}

func setupOptions(c *urfave.Context) (server.SetupOptions, error) {
	o := server.SetupOptions{
		Name: c.String("name"), Addresses: c.StringSlice("address"), ConfigDir: c.String("dir"), StateDir: c.String("state"), Force: c.Bool("force"),
	}
	var err error
	if o.KeyType, err = pki.ParseKeyType(c.String("key-type")); err != nil {
		return o, cli.Usagef("%v", err)
	}
	for name, into := range map[string]*netip.Prefix{"pool4": &o.Pool4, "pool6": &o.Pool6} {
		text := c.String(name)
		if text == "" {
			continue
		}
		if *into, err = netip.ParsePrefix(text); err != nil || into.Addr().Is4() != (name == "pool4") {
			return o, cli.Usagef("--%s: %q is not a network such as 10.66.0.0/22 or fd66::/112", name, text)
		}
		*into = into.Masked()
	}
	for _, text := range c.StringSlice("dns") {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return o, cli.Usagef("--dns: %q is not an address", text)
		}
		o.DNS = append(o.DNS, a)
	}
	return o, nil
}

func printSetup(w io.Writer, r *server.SetupResult) error {
	f := &cli.Fields{}
	f.Add("Configuration", r.Config)
	f.Add("Authority", r.Authority)
	if len(r.Kept) > 0 {
		f.Add("Kept of the former", strings.Join(r.Kept, ", "))
	}
	f.Add("Certificate", fmt.Sprintf("%s, valid until %s", strings.Join(r.Certificate.Identities, ", "), r.Certificate.NotAfter.Format("2006-01-02")))
	var pools []string
	for _, p := range r.Pools {
		pools = append(pools, p.String())
	}
	f.Add("Addresses for clients", strings.Join(pools, ", "))
	if len(r.DNS) == 0 {
		f.Add("DNS for clients", "none: set network.dns if clients should use other name servers than their own")
	}
	if err := f.Print(w); err != nil {
		return err
	}
	printNext(w, r)
	return nil
}
