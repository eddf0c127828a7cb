package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
)

// authPatience is how long a gateway that has answered IKE_SA_INIT may take for
// IKE_AUTH while it has other addresses: what lets small packets through on port 500
// may stop larger ones, or port 4500.
const authPatience = 5 * time.Second

// errAgain says that a race is to begin anew.
var errAgain = errors.New("another address may do")

// race asks the addresses of a gateway, each a little later than the one before or as
// soon as that has failed, until one answers (RFC 8305). The engine sees to it that one
// session at most goes on to IKE_AUTH (ike.Race). If that one fails, the next round
// takes the addresses that are left.
type race struct {
	c        *connection
	search   *search
	outcomes outcomes
	taken    map[netip.Addr]bool                // asked
	refused  map[string]bool                    // entries of the profile that have turned us away
	said     map[netip.Addr]transport.PathError // by ICMP

	// Of one round.
	rules   *ike.Race
	flying  map[ike.SessionID]candidate
	nextAt  time.Time // no other address is asked before
	decided time.Time // when one had answered
}

func newRace(c *connection, s *search) *race {
	return &race{c: c, search: s, taken: map[netip.Addr]bool{}, refused: map[string]bool{}, said: map[netip.Addr]transport.PathError{}}
}

// skip says whether an address is not to be asked. A gateway that has turned us away
// would do so at its other addresses too; each attempt costs it a public-key
// operation, and may lock an account.
func (r *race) skip(cand candidate) bool { return r.taken[cand.addr] || r.refused[cand.server] }

// run returns a session that is authenticated, and the address it was made with.
func (r *race) run(ctx context.Context) (ike.SessionInfo, candidate, error) {
	for {
		info, cand, err := r.round(ctx)
		if !errors.Is(err, errAgain) {
			return info, cand, err
		}
	}
}

// round asks until one session is up or all have failed.
func (r *race) round(ctx context.Context) (ike.SessionInfo, candidate, error) {
	r.rules, r.flying, r.decided = &ike.Race{}, map[ike.SessionID]candidate{}, time.Time{}
	defer r.land()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wake := r.launch(ctx)
		if len(r.flying) == 0 && wake.IsZero() && r.search.over() {
			return r.lost(ctx)
		}
		timer.Stop()
		if !wake.IsZero() {
			timer.Reset(max(0, time.Until(wake)))
		}
		select {
		case a := <-r.c.stack.Events():
			info, cand, err, done := r.event(a)
			if done {
				return info, cand, err
			}
		case <-timer.C:
			if err := r.impatient(ctx); err != nil {
				return ike.SessionInfo{}, candidate{}, err
			}
		case <-r.search.changed:
		case <-r.c.stack.Uplinks():
			if err := r.moved(ctx); err != nil {
				return ike.SessionInfo{}, candidate{}, err
			}
		case e := <-r.c.stack.PathErrors():
			r.hinted(e)
		case <-r.c.stack.Failed():
			return ike.SessionInfo{}, candidate{}, &failure{code: reason.DataPathFailed, detail: r.c.stack.Err().Error()}
		case <-ctx.Done():
			return r.interrupted(ctx)
		}
	}
}

// launch asks what may be asked now, and says when to look again; zero when only an
// event can change anything.
func (r *race) launch(ctx context.Context) (wake time.Time) {
	for {
		now := time.Now()
		if !r.decided.IsZero() {
			if r.others(now) {
				return r.decided.Add(authPatience)
			}
			return time.Time{}
		}
		if len(r.taken) >= maxCandidates {
			return time.Time{}
		}
		if len(r.flying) > 0 && r.nextAt.After(now) {
			if _, more, wait := r.search.next(now, r.skip); more || !wait.IsZero() {
				return later(r.nextAt, wait)
			}
			return time.Time{}
		}
		cand, ok, wait := r.search.next(now, r.skip)
		if !ok {
			return wait
		}
		r.ask(ctx, cand)
	}
}

// ask starts a session with one address.
func (r *race) ask(ctx context.Context, cand candidate) {
	r.taken[cand.addr] = true
	r.nextAt = time.Now().Add(attemptDelay)
	id, err := r.c.stack.Initiate(ctx, r.c.policy, cand.addr, r.rules)
	switch {
	case errors.Is(err, ike.ErrRaceDecided):
		delete(r.taken, cand.addr)
		r.decide()
	case err != nil:
		r.outcomes.add(cand, asFailure(r.c.cancelled(ctx, err)))
		r.nextAt = time.Time{}
	default:
		r.flying[id] = cand
		r.tell()
	}
}

// tell shows what is going on.
func (r *race) tell() {
	var addrs []string
	server := ""
	for _, cand := range r.flying {
		addrs = append(addrs, cand.addr.String())
		server = cand.server
	}
	slices.Sort(addrs)
	what := "asking "
	if !r.decided.IsZero() {
		what = "authenticating with "
	}
	r.c.set(func(l *live) { l.server, l.step = server, what+strings.Join(addrs, " and ") })
}

// decide notes that one address has answered.
func (r *race) decide() {
	if r.decided.IsZero() {
		r.decided = time.Now()
	}
}

// others says whether there are addresses to turn to if the one that answered does not
// go on.
func (r *race) others(now time.Time) bool {
	_, more, wait := r.search.next(now, r.skip)
	return more || !wait.IsZero() || len(r.flying) > 1
}

// event takes what the engine tells; done ends the round.
func (r *race) event(a ike.Action) (info ike.SessionInfo, cand candidate, err error, done bool) {
	switch a := a.(type) {
	case ike.Established:
		cand, mine := r.flying[a.Session]
		if mine {
			clear(r.flying)
			r.c.set(func(l *live) { l.server = cand.server })
		}
		return a.Info, cand, nil, mine
	case ike.Closed:
		cand, mine := r.flying[a.Session]
		if !mine {
			return info, cand, nil, false
		}
		delete(r.flying, a.Session)
		if a.Reason == reason.OtherAddressAnswered {
			delete(r.taken, cand.addr) // it may have its turn if the winner fails
			r.decide()
			r.tell()
			return info, cand, nil, false
		}
		return info, cand, errAgain, r.failed(cand, a)
	}
	return info, cand, nil, false
}

// failed notes the end of an attempt. The round ends if that one had won it.
func (r *race) failed(cand candidate, a ike.Closed) (won bool) {
	unanswered := a.Reason == reason.NoAnswer && a.Info.SPIr == 0
	if unanswered {
		r.silence(cand)
	} else {
		r.outcomes.add(cand, closedBeforeUp(a, cand))
	}
	r.nextAt = time.Time{}
	if a.Notify != 0 && a.Info.SPIr != 0 {
		r.refused[cand.server] = true
	}
	return a.Info.SPIr != 0
}

// impatient gives up an address that has answered, but does not go on, if there are
// others.
func (r *race) impatient(ctx context.Context) error {
	now := time.Now()
	if r.decided.IsZero() || now.Sub(r.decided) < authPatience || !r.others(now) {
		return nil
	}
	for id, cand := range r.flying {
		info, ok := r.c.stack.Session(ctx, id)
		if !ok || info.SPIr == 0 {
			continue
		}
		r.outcomes.add(cand, stuck(cand))
		r.c.stack.Abort(id, reason.NoAnswer)
		delete(r.flying, id)
	}
	return errAgain
}

// moved looks at the attempts after the network of this machine has changed. Those
// that began from an address which is not the one to use any more begin anew; the
// others ask again at once: the cable may have been out for a moment.
func (r *race) moved(ctx context.Context) error {
	again := false
	for id, cand := range r.flying {
		info, ok := r.c.stack.Session(ctx, id)
		if !ok {
			continue // its end is being told
		}
		local, err := r.c.stack.LocalFor(cand.addr)
		if err == nil && local == info.Path.Pair.Local.Addr() {
			r.c.stack.Repeat(id)
			continue
		}
		again = true
		r.c.stack.Abort(id, reason.PathFailed)
		delete(r.flying, id)
		delete(r.taken, cand.addr)
	}
	if again && len(r.flying) == 0 {
		return errAgain
	}
	return nil
}

// hinted takes what ICMP says about an address. It may be forged, so the attempt goes
// on; but the next address need not wait.
func (r *race) hinted(e transport.PathError) {
	for _, cand := range r.flying {
		if cand.addr == e.Pair.Remote.Addr() {
			if _, known := r.said[cand.addr]; !known {
				r.nextAt = time.Time{}
			}
			r.said[cand.addr] = e
		}
	}
}

// silence notes that an address has not answered.
func (r *race) silence(cand candidate) {
	if e, ok := r.said[cand.addr]; ok {
		r.outcomes.addSilent(cand, &e)
		return
	}
	r.outcomes.addSilent(cand, nil)
}

// land ends what is still in flight; it may have its turn in another round.
func (r *race) land() {
	for id, cand := range r.flying {
		r.c.stack.Abort(id, reason.Cancelled)
		delete(r.taken, cand.addr)
	}
	clear(r.flying)
}

// lost is the end of a race that nobody has won.
func (r *race) lost(ctx context.Context) (ike.SessionInfo, candidate, error) {
	none := ike.SessionInfo{}
	if f := r.outcomes.sum(); f != nil {
		return none, candidate{}, f
	}
	if ctx.Err() != nil {
		return none, candidate{}, r.c.cancelled(ctx, ctx.Err())
	}
	return none, candidate{}, &failure{code: reason.DNSFailed, detail: r.search.problem()}
}

// interrupted is the end of a race by the user, or for its time being over.
func (r *race) interrupted(ctx context.Context) (ike.SessionInfo, candidate, error) {
	none := ike.SessionInfo{}
	if context.Cause(ctx) != errTooLong {
		return none, candidate{}, r.c.cancelled(ctx, ctx.Err())
	}
	for _, id := range slices.Sorted(maps.Keys(r.flying)) { // in the order of asking
		cand := r.flying[id]
		info, ok := r.c.stack.Session(context.WithoutCancel(ctx), id)
		if ok && info.SPIr != 0 {
			r.outcomes.add(cand, stuck(cand))
			continue
		}
		r.silence(cand)
	}
	if f := r.outcomes.sum(); f != nil {
		return none, candidate{}, f
	}
	return none, candidate{}, &failure{code: reason.DNSFailed, detail: r.search.problem()}
}

// closedBeforeUp turns the end of an attempt that was answered into a failure.
func closedBeforeUp(a ike.Closed, cand candidate) *failure {
	if a.Reason != reason.NoAnswer {
		return &failure{code: a.Reason, notify: a.Notify, detail: a.Detail}
	}
	return stuck(cand)
}

// stuck is the failure of a gateway that does not answer IKE_AUTH.
func stuck(cand candidate) *failure {
	return &failure{
		code:   reason.NoAnswer,
		detail: fmt.Sprintf("%s at %s answered the first message, then no more", cand.server, cand.addr),
		hint:   "The first message goes to UDP port 500, the next ones to 4500 or in larger packets. Does a firewall let port 4500 pass, and IP fragments? IKE fragmentation (tunnel.fragmentation = true) helps with the latter.",
	}
}
