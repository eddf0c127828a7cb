package client

import (
	"context"
	"errors"
	"fmt"
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
	candidates, err := c.resolver.candidates(ctx, c.profile.Server, c.applied)
	if err != nil {
		return info, err
	}
	for i, cand := range candidates {
		var perr error
		info, perr = c.try(ctx, cand, i < len(candidates)-1)
		if perr == nil {
			return info, nil
		}
		err = worse(err, perr)
		if ctx.Err() != nil {
			break
		}
	}
	return info, err
}

// worse picks the error to report after several addresses: an answer says more than
// silence.
func worse(a, b error) error {
	var fa *failure
	if errors.As(a, &fa) && !noAnswer(fa.code) && fa.code != reason.NoNetwork && fa.code != reason.Cancelled {
		return a
	}
	return b
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

// try makes a session with the gateway at one address. When there are others, it
// does not wait long for a first answer.
func (c *connection) try(ctx context.Context, cand candidate, others bool) (ike.SessionInfo, error) {
	c.set(func(l *live) { l.server, l.step = cand.server, fmt.Sprintf("asking %s", cand.addr) })
	id, err := c.stack.Initiate(ctx, c.policy, cand.addr)
	if err != nil {
		return ike.SessionInfo{}, c.cancelled(ctx, err)
	}
	var hurry <-chan time.Time
	if others {
		timer := time.NewTimer(nextPatience)
		defer timer.Stop()
		hurry = timer.C
	}
	for {
		select {
		case a := <-c.stack.Events():
			switch a := a.(type) {
			case ike.Established:
				if a.Session == id {
					return c.established(ctx, a.Info)
				}
			case ike.Closed:
				if a.Session == id {
					return ike.SessionInfo{}, c.closedBeforeUp(a, cand)
				}
			}
		case <-hurry:
			hurry = nil
			if info, ok := c.stack.Session(ctx, id); !ok || info.SPIr != 0 {
				continue // it has answered: let it take its time
			}
			c.stack.Abort(id, reason.NoAnswer)
			return ike.SessionInfo{}, c.silent(cand)
		case <-c.stack.Failed():
			return ike.SessionInfo{}, &failure{code: reason.DataPathFailed, detail: c.stack.Err().Error()}
		case <-ctx.Done():
			info, ok := c.stack.Session(context.WithoutCancel(ctx), id)
			c.stack.Abort(id, reason.UserDisconnect)
			if context.Cause(ctx) == errTooLong && (!ok || info.SPIr == 0) {
				return ike.SessionInfo{}, c.silent(cand)
			}
			return ike.SessionInfo{}, c.cancelled(ctx, ctx.Err())
		}
	}
}

// cancelled keeps an end that was asked for apart from failures.
func (c *connection) cancelled(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return &failure{code: reason.Cancelled, detail: err.Error()}
	}
	return err
}

// silent is the failure of a gateway that does not answer at all: the most frequent
// trouble on foreign networks, so it says what to try.
func (c *connection) silent(cand candidate) *failure {
	return &failure{
		code:   reason.NoAnswer,
		detail: fmt.Sprintf("no answer from %s at %s, UDP port %d", cand.server, cand.addr, ikePort),
		hint: "Does this network let UDP out on ports 500 and 4500? Guest networks often do not: try another one, a phone's hotspot for instance. " +
			"If it fails everywhere, check the server's address in the profile, and on the gateway that vpn-server runs and its firewall admits UDP 500 and 4500.",
	}
}

// closedBeforeUp turns the end of an attempt into a failure.
func (c *connection) closedBeforeUp(a ike.Closed, cand candidate) error {
	if a.Reason == reason.NoAnswer && a.Info.SPIr == 0 {
		return c.silent(cand)
	}
	f := &failure{code: a.Reason, notify: a.Notify, detail: a.Detail}
	if a.Reason == reason.NoAnswer {
		f.detail = fmt.Sprintf("%s at %s answered the first message, then no more", cand.server, cand.addr)
		f.hint = "The first message goes to UDP port 500, the next ones to 4500 or in larger packets. Does a firewall let port 4500 pass, and IP fragments? IKE fragmentation (tunnel.fragmentation = true) helps with the latter."
	}
	return f
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
