// Command vpn-server is the gateway of Wayfarer: it makes one, runs it, and manages
// its users and sessions.
package main

import (
	"os"

	urfave "github.com/urfave/cli/v2"

	"github.com/wayfarer-vpn/wayfarer/internal/cli"
	"github.com/wayfarer-vpn/wayfarer/server"
)

func main() { os.Exit(cli.Main(newApp())) }

// Names of options.
const (
	flagConfig = "config"
	flagSocket = "socket"
)

func newApp() *urfave.App {
	app := cli.New(cli.Info{
		Name:  "vpn-server",
		Usage: "gateway for IKEv2 clients",
		Description: "vpn-server is a VPN gateway that speaks IKEv2 and IPsec with our own client and with those of phones, desktops and other vendors. " +
			"\"init\" makes a gateway, \"run\" runs it, \"user add\" lets somebody in. Without a command, but with --config, it runs the gateway.",
		Examples: []cli.Example{
			{Command: "vpn-server init --name vpn.example.org --address 203.0.113.1", Does: "Make a gateway: authority, certificate, configuration"},
			{Command: "vpn-server run", Does: "Run it in the foreground"},
			{Command: "vpn-server user add alice", Does: "Let alice in"},
			{Command: "vpn-server profile export alice --output alice.toml", Does: "Hand out her profile"},
			{Command: "vpn-server sessions", Does: "See who is connected"},
		},
		Files: []cli.File{
			{Path: server.DefaultConfigFile, Holds: "The configuration."},
			{Path: server.DefaultStateDir, Holds: "The certificate authority, users, profiles and address leases."},
			{Path: server.DefaultSocket, Holds: "The control socket."},
		},
		SeeAlso: []string{"vpn-client(8)"},
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: flagConfig, Aliases: []string{"c"}, Usage: "read the configuration from `FILE`", Value: server.DefaultConfigFile},
			&urfave.StringFlag{Name: flagSocket, Usage: "reach the daemon at `PATH` instead of where the configuration says"},
		},
		Commands: []*urfave.Command{
			initCommand(), runCommand(), checkCommand(),
			userCommand(), profileCommand(),
			statusCommand(), sessionsCommand(), disconnectCommand(), reloadCommand(), eventsCommand(),
			certCommand(), crlCommand(), logLevelCommand(), cleanupCommand(),
		},
	})
	needCommand := app.Action
	app.Action = func(c *urfave.Context) error {
		if c.NArg() == 0 && c.IsSet(flagConfig) {
			return run(c)
		}
		return needCommand(c)
	}
	return app
}
