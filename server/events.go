package server

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/internal/shard"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// handle takes the engines' events. It is called on a shard's goroutine and does not
// wait.
func (s *Server) handle(sh *shard.Shard, action ike.Action) {
	switch a := action.(type) {
	case ike.AuthorizeRequest:
		s.authorize(sh, a)
	case ike.Established:
		s.established(a)
	case ike.Rekeyed:
		s.rekeyed(a)
	case ike.ChildDown:
		s.childDown(a)
	case ike.Closed:
		s.closed(a)
	case ike.Refused:
		s.refused(a)
	case ike.PathChanged:
		s.pathChanged(a)
	case ike.PathMTUFound:
		s.log.Debug("path MTU", "session", uint64(a.Session), "path", a.Pair.String(), "mtu", a.MTU, "before", a.Before)
	}
}

// abort ends a session at once. If it is not the engine's any more, it is taken out of
// the table here, so that nobody waits for it for ever.
func (s *Server) abort(id ike.SessionID, why reason.Code) {
	s.group.Of(id).Do(func(now time.Time, e shard.Engine) { e.Abort(now, id, why) })
}

func (s *Server) established(a ike.Established) {
	s.table.with(a.Session, func(x *session) { x.up = true })
	i := a.Info
	s.log.Info("session up", append(who(i), slog.Any("addresses", i.Config.Addresses), slog.String("auth", i.AuthMethod.String()),
		slog.String("ike", ikeAlgorithms(i.Algorithms)), slog.String("esp", firstChildAlgorithms(i)),
		slog.Bool("nat", i.NATPeer), slog.Duration("took", i.Established.Sub(i.Started).Round(time.Millisecond/10)))...)
	s.events.publish(Event{Time: time.Now(), Kind: "session-up", Session: newSession(i, nil)})
}

func (s *Server) rekeyed(a ike.Rekeyed) {
	what := "child sa"
	if a.IKE {
		what = "ike sa"
	}
	s.log.Debug("rekeyed", "session", uint64(a.Session), "what", what)
	s.events.publish(Event{Time: time.Now(), Kind: "rekeyed", ID: uint64(a.Session), Detail: what})
}

func (s *Server) childDown(a ike.ChildDown) {
	s.log.Info("child sa down", "session", uint64(a.Session), "reason", string(a.Reason), "why", a.Reason.Title())
	s.events.publish(Event{Time: time.Now(), Kind: "child-down", ID: uint64(a.Session), Reason: a.Reason})
}

// closed takes a session out of the table and gives its addresses back; whoever waits
// for that goes on.
func (s *Server) closed(a ike.Closed) {
	x := s.table.remove(a.Session)
	why := a.Reason
	if x != nil {
		s.leases.release(x.owner, x.id, x.addresses...)
		if x.closing != "" {
			why = x.closing
		}
	}
	s.report(x, a, why)
	if x == nil {
		return
	}
	for _, f := range x.after {
		f()
	}
}

// report tells of the end of a session. What never came up and has not proved who it
// is can be a stranger's doing: at a limited rate.
func (s *Server) report(x *session, a ike.Closed, why reason.Code) {
	attrs := append(who(a.Info), slog.String("reason", string(why)), slog.String("why", why.Title()))
	if a.Detail != "" {
		attrs = append(attrs, slog.String("detail", a.Detail))
	}
	r, _ := reason.Lookup(why)
	if r.Severity >= reason.SeverityWarning {
		s.noteError(why, notifyName(a.Notify, why), a.Detail, a.Info.Peer.String(), a.Info.Path.Pair.Remote)
	}
	switch {
	case x != nil && x.up:
		attrs = append(attrs, slog.Duration("lasted", time.Since(a.Info.Established).Round(time.Second)))
		if x.final != nil {
			attrs = append(attrs, slog.Uint64("in_bytes", x.final.InBytes), slog.Uint64("out_bytes", x.final.OutBytes))
		}
		s.log.Info("session down", attrs...)
		s.events.publish(Event{Time: time.Now(), Kind: "session-down", ID: uint64(a.Session), Reason: why, Detail: a.Detail, Session: newSession(a.Info, x.final)})
	case a.Info.Peer.IsZero() && a.Notify == 0:
		// Half-open and forgotten: a scan, a spoofed address, or a client that gave up.
		s.log.Debug("half-open session dropped", attrs...)
	case x != nil || s.noise.Allow(time.Now()):
		s.log.Warn("session refused", s.withSuppressed(attrs)...)
		s.events.publish(Event{Time: time.Now(), Kind: "session-refused", ID: uint64(a.Session), Reason: why, Detail: a.Detail,
			Peer: a.Info.Peer.String(), Remote: a.Info.Path.Pair.Remote})
	}
}

// noiseCodes are what anybody on the network can cause. They are logged, at a limited
// rate, but do not take the place of the last error that somebody may be looking for.
var noiseCodes = map[reason.Code]bool{
	reason.MalformedMessage: true, reason.UnknownSPI: true, reason.InvalidMessageID: true, reason.UnprotectedMessage: true,
	reason.IntegrityFailed: true, reason.ReplayedMessage: true, reason.HalfOpenLimit: true, reason.RateLimited: true,
}

// refused tells of requests that were turned away before there was a session.
func (s *Server) refused(a ike.Refused) {
	if a.Reason == reason.CookieRequired {
		s.log.Debug("cookie demanded", "remote", a.Pair.Remote)
		return
	}
	if !noiseCodes[a.Reason] {
		s.noteError(a.Reason, notifyName(a.Notify, a.Reason), a.Detail, "", a.Pair.Remote)
	}
	if !s.noise.Allow(time.Now()) {
		return
	}
	s.log.Warn("request refused", s.withSuppressed([]any{slog.Any("remote", a.Pair.Remote), slog.Any("local", a.Pair.Local),
		slog.String("reason", string(a.Reason)), slog.String("why", a.Reason.Title()), slog.String("detail", a.Detail)})...)
	s.events.publish(Event{Time: time.Now(), Kind: "request-refused", Reason: a.Reason, Detail: a.Detail, Remote: a.Pair.Remote})
}

// sawMalformed tells, now and then, of datagrams that are no IKE messages.
func (s *Server) sawMalformed(pair locator.Pair) {
	if !s.malformed.Allow(time.Now()) {
		return
	}
	s.log.Warn("datagram that is no IKE message", slog.Any("remote", pair.Remote), slog.Uint64("suppressed", s.malformed.Suppressed()))
}

// withSuppressed adds how many lines the limit has left out before this one.
func (s *Server) withSuppressed(attrs []any) []any {
	if n := s.noise.Suppressed(); n > 0 {
		attrs = append(attrs, slog.Uint64("suppressed", n))
	}
	return attrs
}

// who are the attributes that every line about a session has.
func who(i ike.SessionInfo) []any {
	return []any{slog.Uint64("session", uint64(i.ID)), slog.String("peer", i.Peer.String()), slog.Any("remote", i.Path.Pair.Remote)}
}

// LastError is the last failure that the gateway saw.
type LastError struct {
	Time   time.Time      `json:"time"`
	Code   reason.Code    `json:"code"`
	Notify string         `json:"notify,omitempty"` // name in RFC 7296, or TIMEOUT
	Title  string         `json:"title"`
	Detail string         `json:"detail,omitempty"`
	Hint   string         `json:"hint,omitempty"`
	Peer   string         `json:"peer,omitempty"`
	Remote netip.AddrPort `json:"remote"`
}

func (s *Server) noteError(code reason.Code, notify, detail, peer string, remote netip.AddrPort) {
	s.lastError.Store(&LastError{time.Now(), code, notify, code.Title(), detail, code.Hint(), peer, remote})
}

// Event is something that happened, for those who watch.
type Event struct {
	Time    time.Time      `json:"time"`
	Kind    string         `json:"event"`
	ID      uint64         `json:"id,omitempty"`
	Peer    string         `json:"identity,omitempty"`
	Remote  netip.AddrPort `json:"remote,omitzero"`
	Reason  reason.Code    `json:"reason,omitempty"`
	Detail  string         `json:"detail,omitempty"`
	Session *Session       `json:"session,omitempty"`
}

// String is the event for a person.
func (e Event) String() string {
	text := fmt.Sprintf("%s %s", e.Time.Format(time.TimeOnly), e.Kind)
	if e.Session != nil {
		text += fmt.Sprintf(" %d %s %s", e.Session.ID, e.Session.Identity, e.Session.Remote)
	} else {
		if e.ID != 0 {
			text += fmt.Sprintf(" %d", e.ID)
		}
		if e.Peer != "" {
			text += " " + e.Peer
		}
		if e.Remote.IsValid() {
			text += " " + e.Remote.String()
		}
	}
	if e.Reason != "" {
		text += ": " + e.Reason.Title()
	}
	if e.Detail != "" {
		text += " (" + e.Detail + ")"
	}
	return text
}
