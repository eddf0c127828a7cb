// Command vpn-client connects this machine to a gateway: it keeps profiles, runs the
// daemon that holds the tunnel, and tells it what to do.
package main

import (
	"os"

	urfave "github.com/urfave/cli/v2"

	"github.com/wayfarer-vpn/wayfarer/client"
	"github.com/wayfarer-vpn/wayfarer/internal/cli"
)

func main() { os.Exit(cli.Main(newApp())) }

// Names of options.
const (
	flagConfig = "config"
	flagSocket = "socket"
	flagDir    = "dir"
)

func newApp() *urfave.App {
	app := cli.New(cli.Info{
		Name:  "vpn-client",
		Usage: "VPN client for IKEv2 gateways",
		Description: "vpn-client keeps this machine connected to a gateway, ours or another vendor's, wherever it goes. " +
			"\"import\" takes in the profile that the gateway's administrator hands out, \"up\" connects. " +
			"The work is done by a daemon, normally a system service; \"run\" runs it by hand, as does --config without a command.",
		Examples: []cli.Example{
			{Command: "vpn-client import alice.toml && vpn-client up alice", Does: "Take in a profile and connect"},
			{Command: "vpn-client status --watch", Does: "See how it goes"},
			{Command: "vpn-client down", Does: "Disconnect"},
		},
		Files: []cli.File{
			{Path: client.DefaultProfileDir, Holds: "The profiles. They hold secrets; only root can read them."},
			{Path: client.DefaultConfigFile, Holds: "The daemon's configuration, if the defaults do not fit."},
			{Path: client.DefaultStateDir, Holds: "What the daemon must know after a crash, the machine's own name servers among it."},
			{Path: client.DefaultSocket, Holds: "The control socket."},
		},
		SeeAlso: []string{"vpn-server(8)"},
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: flagConfig, Aliases: []string{"c"}, Usage: "read the daemon's configuration from `FILE`", Value: client.DefaultConfigFile, EnvVars: []string{"VPN_CLIENT_CONFIG"}},
			&urfave.StringFlag{Name: flagSocket, Usage: "reach the daemon at `PATH` instead of where the configuration says"},
		},
		Commands: []*urfave.Command{
			importCommand(), listCommand(), removeCommand(),
			upCommand(), downCommand(), statusCommand(), pathsCommand(), logsCommand(),
			checkCommand(), runCommand(),
		},
	})
	needCommand := app.Action
	app.Action = func(c *urfave.Context) error {
		if c.NArg() == 0 && c.IsSet(flagConfig) {
			return runDaemon(c)
		}
		return needCommand(c)
	}
	return app
}
