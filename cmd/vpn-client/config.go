package main

import (
	"errors"
	"io/fs"
	"os"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/wayfarer-vpn/wayfarer/client"
	"github.com/wayfarer-vpn/wayfarer/internal/cli"
	"github.com/wayfarer-vpn/wayfarer/internal/control"
)

// loadConfig reads the daemon's configuration. The default file may be missing; one
// that was named may not.
func loadConfig(c *urfave.Context) (*client.Config, []string, error) {
	cfg, warnings, err := client.LoadConfig(c.String(flagConfig), !c.IsSet(flagConfig), time.Now())
	if err != nil {
		return nil, nil, &cli.Error{Code: cli.ExitUsage, Err: err}
	}
	return cfg, warnings, nil
}

// configFor is loadConfig for commands that any user may give: who cannot read the
// file goes by the defaults.
func configFor(c *urfave.Context) (*client.Config, error) {
	cfg, _, err := loadConfig(c)
	if err != nil && os.Geteuid() != 0 && errors.Is(err, fs.ErrPermission) {
		return client.NewConfig(), nil
	}
	return cfg, err
}

// daemon is the way to the daemon.
func daemon(c *urfave.Context) (*control.Client, error) {
	path := c.String(flagSocket)
	if path == "" {
		cfg, err := configFor(c)
		if err != nil {
			return nil, err
		}
		path = cfg.Socket
	}
	return control.NewClient(path, "vpn-client"), nil
}

// store is where the profiles are.
func store(c *urfave.Context) (client.Store, error) {
	if dir := c.String(flagDir); dir != "" {
		return client.Store{Dir: dir}, nil
	}
	cfg, err := configFor(c)
	if err != nil {
		return client.Store{}, err
	}
	return cfg.Store(), nil
}

func dirFlag() urfave.Flag {
	return &urfave.StringFlag{Name: flagDir, Usage: "keep profiles in `DIR` instead of where the configuration says"}
}
