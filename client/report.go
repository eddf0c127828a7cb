package client

import (
	"context"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
)

// report writes the connection into a status.
func (c *connection) report(ctx context.Context, s *Status) {
	c.mu.Lock()
	l := c.st
	c.mu.Unlock()
	s.State, s.Step, s.Server = l.state, l.step, l.server
	s.Profile, s.Generation, s.Warnings = c.profile.Name, c.generation, c.warnings
	s.Problem, s.LastError, s.Handover = l.problem, l.lastError, l.handover
	if !l.retryAt.IsZero() {
		s.RetryAt = &l.retryAt
	}
	if l.session == 0 || l.stack == nil {
		if l.network != nil && l.state == Reconnecting {
			s.fillNetwork(*l.network)
		}
		return
	}
	info := l.info
	if now, ok := l.stack.Session(ctx, l.session); ok {
		info = now
	}
	s.fillSession(info)
	s.Interface, s.MTU = l.stack.Device()
	choice := l.stack.DataPath()
	s.DataPath = &choice
	if l.network != nil {
		s.fillNetwork(*l.network)
	}
	stats, err := l.stack.Stats(l.session)
	if err == nil {
		s.Traffic = trafficOf(stats)
	}
	c.judgeNow(s, info, stats)
}

// judgeNow keeps a status truthful between two looks at the session.
func (c *connection) judgeNow(s *Status, info ike.SessionInfo, stats esp.Stats) {
	if s.State == Connected || s.State == Degraded {
		s.State, s.Problem = Connected, nil
		if f := judge(time.Now(), info, stats); f != nil {
			s.State, s.Problem = Degraded, f.problem(time.Now(), c.generation)
		}
	}
	s.Connected = s.State == Connected
}

// fillNetwork writes the machine's settings into a status.
func (s *Status) fillNetwork(n Network) {
	s.Interface = n.Interface
	s.Addresses = append(s.Addresses, n.Addresses...)
	s.DNS = append(s.DNS, n.DNS...)
	s.Domains, s.Routes, s.Blocked = n.Domains, n.routes(), n.blocked()
}
