package mobike

import (
	"net/netip"
	"slices"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// maxAnnounced bounds the addresses that we announce; what a peer may announce is
// bounded by locator.Policy.
const maxAnnounced = 8

// Task is MOBIKE in one session.
type Task struct {
	cfg     *Config
	session *ike.Session
	active  bool // both sides support it
	offered bool // responder: the initiator does

	entry *locator.Entry

	// announced is the list of additional addresses that the peer has from us;
	// locals is what it ought to be made from.
	announced []netip.Addr
	locals    []locator.Local
	announce  bool // an announcement waits for its turn

	flight  flight
	probe   probe
	update  update
	follow  follow
	hurry   hurry
	nat     natMapping
	noNATs  patience // with UNEXPECTED_NAT_DETECTED
	repeat  allowance
	seen    netip.AddrPort // where fresh ESP came from last, if not over the path
	seenAt  time.Time
	begunAt time.Time // not zero: decisions wait for the session to be up
	outage  outage
	askedAt time.Time // responder: the peer's last update, or sign of another mapping
}

// Active says whether MOBIKE was negotiated.
func (t *Task) Active() bool { return t.active }

// Moves implements ike.Mover.
func (t *Task) Moves() bool { return t.active }

// Request adds MOBIKE_SUPPORTED and our additional addresses to IKE_AUTH
// (RFC 4555 §3.3, §3.4), and NAT detection to liveness checks (§3.8).
func (t *Task) Request(x *ike.Exchange) error {
	switch x.Type {
	case message.IKEAuth:
		x.Add(&message.Notify{Kind: message.MOBIKESupported})
		t.locals = t.cfg.Local()
		t.addAdditional(x, x.Pair, false)
		addNoNATs(x)
	case message.Informational:
		if t.active && t.session.Role() == ike.Initiator {
			x.AddNATDetection()
		}
	}
	return nil
}

// HandleRequest reads the peer's MOBIKE notifies.
func (t *Task) HandleRequest(x *ike.Exchange) error {
	switch {
	case x.Type == message.IKEAuth:
		t.offered = x.Notify(message.MOBIKESupported) != nil
		return checkNoNATs(x)
	case x.Type == message.Informational && t.active:
		return t.handleInformational(x)
	}
	return nil
}

// Respond adds our part of an answer.
func (t *Task) Respond(x *ike.Exchange) error {
	switch {
	case x.Type == message.IKEAuth && t.offered:
		x.Add(&message.Notify{Kind: message.MOBIKESupported})
		t.locals = t.cfg.Local()
		t.addAdditional(x, x.Pair, false)
		t.begin(x)
	case x.Type == message.Informational && t.active:
		if c := x.Notify(message.Cookie2); c != nil {
			x.Add(&message.Notify{Kind: message.Cookie2, Data: c.Data})
		}
		if x.Notify(message.NATDetectionSourceIP) != nil {
			x.AddNATDetection()
		}
	}
	return nil
}

// HandleResponse learns in IKE_AUTH whether the responder supports MOBIKE.
func (t *Task) HandleResponse(x *ike.Exchange) error {
	switch x.Type {
	case message.IKEAuth:
		if x.Notify(message.MOBIKESupported) != nil {
			t.begin(x)
		}
	case message.Informational:
		t.checkMapping(x)
		fallthrough
	case message.CreateChildSA:
		if t.active {
			t.run(x.Now) // what waited for this exchange
		}
	}
	return nil
}

// begin makes the session's host entry.
func (t *Task) begin(x *ike.Exchange) {
	t.active = true
	role := locator.Initiator
	if t.session.Role() == ike.Responder {
		role = locator.Responder
	}
	jitter := locator.Jitter(func() uint32 {
		b := t.session.Random(4)
		return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
	})
	t.entry = locator.NewEntry(t.policyFor(x.Pair), x.Now, x.Pair, role, jitter, locator.Vouch(t.session.Certified))
	t.noteNAT(x)
	t.setForeign(x)
	if len(t.locals) > 0 {
		t.entry.SetLocal(x.Now, t.withCurrent(x.Pair))
	}
	// What the entry wants is done when the session is up: IKE_AUTH is not over yet.
	t.begunAt = x.Now
}

// policyFor is the policy of a session that came up over a pair. Where the user has no
// opinion, the address family that worked for connecting is preferred to the other one.
func (t *Task) policyFor(pair locator.Pair) locator.Policy {
	p := t.cfg.Policy
	if p.Family == locator.AnyFamily {
		p.Family = locator.PreferIPv6
		if pair.Remote.Addr().Unmap().Is4() {
			p.Family = locator.PreferIPv4
		}
	}
	return p
}

// withCurrent is the list of local addresses; the one in use is on it, whatever
// Local forgot.
func (t *Task) withCurrent(pair locator.Pair) []locator.Local {
	known := slices.ContainsFunc(t.locals, func(l locator.Local) bool { return l.Addr == pair.Local.Addr() })
	if known || t.session.Role() == ike.Initiator {
		return t.locals
	}
	return append(slices.Clone(t.locals), locator.Local{Addr: pair.Local.Addr(), Interface: pair.Interface})
}

// setForeign takes the peer's address list from a message: the source in its
// header, and the additional addresses (RFC 4555 §3.6).
func (t *Task) setForeign(x *ike.Exchange) {
	list := []locator.Foreign{{Addr: x.Pair.Remote, Origin: locator.Learnt}}
	port := x.Pair.Remote.Port()
	if t.session.Role() == ike.Responder && t.session.NATTraversal() {
		port = ike.NATTPort // behind a NAT the port of the header is good for that address only
	}
	for _, n := range message.Notifies(x.In) {
		if a, ok := additional(n); ok {
			list = append(list, locator.Foreign{Addr: netip.AddrPortFrom(a, port), Origin: locator.Learnt})
		}
	}
	t.entry.SetForeign(x.Now, list)
}

// additional reads an ADDITIONAL_IP4_ADDRESS or ADDITIONAL_IP6_ADDRESS
// (RFC 4555 §4.2.2).
func additional(n *message.Notify) (netip.Addr, bool) {
	want := map[message.NotifyType]int{message.AdditionalIP4Address: 4, message.AdditionalIP6Address: 16}[n.Kind]
	if want == 0 || len(n.Data) != want {
		return netip.Addr{}, false
	}
	a, ok := netip.AddrFromSlice(n.Data)
	return a, ok && !a.Is4In6()
}

// addAdditional adds the addresses that the header does not show; with always, also
// that there are none (RFC 4555 §3.6).
func (t *Task) addAdditional(x *ike.Exchange, pair locator.Pair, always bool) {
	t.announced = t.additionalTo(pair)
	for _, a := range t.announced {
		kind := message.AdditionalIP4Address
		if a.Is6() {
			kind = message.AdditionalIP6Address
		}
		x.Add(&message.Notify{Kind: kind, Data: a.AsSlice()})
	}
	if len(t.announced) == 0 && always {
		x.Add(&message.Notify{Kind: message.NoAdditionalAddresses})
	}
}

// additionalTo lists our addresses but the one of the pair.
func (t *Task) additionalTo(pair locator.Pair) []netip.Addr {
	var out []netip.Addr
	if !t.cfg.Announce {
		return nil
	}
	for _, l := range t.locals {
		a := l.Addr.Unmap()
		scope := locator.ScopeOf(a)
		if a == pair.Local.Addr().Unmap() || scope < locator.ScopePrivate || slices.Contains(out, a) || len(out) == maxAnnounced {
			continue
		}
		out = append(out, a)
	}
	return out
}
