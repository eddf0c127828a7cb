package client

import (
	"context"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// connect finds the gateway and makes a session with it.
func (c *connection) connect(ctx context.Context) (info ike.SessionInfo, err error) {
	if err := c.ensureStack(); err != nil {
		return info, err
	}
	c.step("looking for %s", c.profile.Server[0])
	looking, cancel := context.WithCancel(ctx)
	defer cancel()
	r := newRace(c, c.resolver.search(looking, c.profile.Server, c.applied))
	for {
		info, cand, err := r.run(ctx)
		if err != nil {
			return info, err
		}
		if info, err = c.established(ctx, info); err == nil {
			c.resolver.memory.connected(cand)
			return info, nil
		}
		// It is no use to us, nor will it be at another address.
		r.outcomes.add(cand, asFailure(err))
		r.refused[cand.server] = true
		if ctx.Err() != nil {
			return info, err
		}
	}
}

// ensureStack makes the stack, or makes it anew after it has failed.
func (c *connection) ensureStack() error {
	if c.stack != nil && c.stack.Err() == nil {
		return nil
	}
	if c.stack != nil {
		c.stack.Shutdown()
		c.stack = nil
		c.set(func(l *live) { l.stack = nil })
	}
	s, err := c.newStack(c.profile)
	if err != nil {
		return err
	}
	c.stack = s
	c.set(func(l *live) { l.stack = s })
	return nil
}

// cancelled keeps an end that was asked for apart from failures.
func (c *connection) cancelled(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return &failure{code: reason.Cancelled, detail: err.Error()}
	}
	return err
}

// established completes a session that came without a Child SA (RFC 6023), and
// checks that it can be used.
func (c *connection) established(ctx context.Context, info ike.SessionInfo) (ike.SessionInfo, error) {
	c.step("authenticated, setting up")
	if len(info.Children) == 0 {
		var err error
		if info, err = c.createChild(ctx, info); err != nil {
			c.end(info.ID, reason.NoChildSA)
			return info, err
		}
	}
	if len(info.Config.Addresses) == 0 {
		c.end(info.ID, reason.NoAddressAssigned)
		return info, &failure{code: reason.NoAddressAssigned, detail: "the gateway gave no inner address", hint: "The gateway needs an address pool for its clients (network.pool4, network.pool6 in server.toml)."}
	}
	return info, nil
}

// createChild asks for the Child SA and waits until it is there.
func (c *connection) createChild(ctx context.Context, info ike.SessionInfo) (ike.SessionInfo, error) {
	if err := c.stack.CreateChild(ctx, info.ID, c.policy.RemoteSelectors); err != nil {
		return info, &failure{code: reason.NoChildSA, detail: err.Error()}
	}
	deadline := time.NewTimer(childPatience)
	defer deadline.Stop()
	poll := time.NewTicker(childPoll)
	defer poll.Stop()
	for {
		select {
		case <-poll.C:
			if now, ok := c.stack.Session(ctx, info.ID); ok && len(now.Children) > 0 {
				return now, nil
			}
		case a := <-c.stack.Events():
			if closed, ok := a.(ike.Closed); ok && closed.Session == info.ID {
				return info, &failure{code: closed.Reason, notify: closed.Notify, detail: closed.Detail}
			}
		case <-deadline.C:
			return info, &failure{code: reason.NoChildSA, detail: "the gateway made no Child SA when asked for one"}
		case <-ctx.Done():
			return info, c.cancelled(ctx, ctx.Err())
		}
	}
}
