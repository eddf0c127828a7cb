package server

import (
	"context"
	"log/slog"
	"path/filepath"

	"github.com/wayfarer-vpn/wayfarer/esp/xfrm"
	"github.com/wayfarer-vpn/wayfarer/internal/datapath"
	"github.com/wayfarer-vpn/wayfarer/server/network"
)

// networkFile of the state directory notes what the gateway has changed of the host.
const networkFile = "network.json"

// Cleanup removes what a gateway with that state directory has left on this machine:
// routes, rules and filters, and after a crash the kernel's part of the tunnel. It
// refuses when a daemon answers on the control socket.
func Cleanup(ctx context.Context, stateDir, socket string, log *slog.Logger) error {
	if err := Running(ctx, socket); err != nil {
		return err
	}
	datapath.Clean(xfrm.Gateway, log)
	return network.New(filepath.Join(stateDir, networkFile), log).Remove()
}
