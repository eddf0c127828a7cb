package ike

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

const (
	// maxChildren bounds the Child SAs of a session, those being replaced included.
	maxChildren = 16
	// removalDelay keeps a replaced Child SA in the data path a little longer:
	// packets that were on their way are still accepted.
	removalDelay = 2 * time.Second
	// expireMargin comes on top of one and a half times the age at which a Child SA is
	// renewed: so long it lives if every renewal fails.
	expireMargin = 30 * time.Second
)

// childSA is one Child SA pair.
type childSA struct {
	id            esp.ChildID
	spiIn, spiOut uint32
	alg           suite.ESPAlgorithms
	local, remote []esp.Selector
	in, out       esp.SA // with keys, until the data path has them

	established time.Time
	rekeyAt     time.Time
	expireAt    time.Time

	tfc bool // the peer takes padded packets (RFC 4303 §2.7)
	use childUse
	// unconfirmed: made by the peer's request, and our answer may be lost, so that
	// the peer need not know it yet.
	unconfirmed bool
	deletion    deletion
	removeAt    time.Time // from the data path, once deleted

	// ours is our rekey of it, waiting or in flight; successor is what the peer's
	// rekey of it made, with the nonces of that exchange (RFC 7296 §2.8.1).
	ours            *rekeyChildRequest
	successor       *childSA
	successorNonces nonces
}

// childUse says what a Child SA is for.
type childUse uint8

const (
	standby   childUse = iota // the peer may send on it, we do not yet
	active                    // we send on it
	replaced                  // a successor is in use
	redundant                 // lost a collision of two rekeys: who made it deletes it
)

// deletion says how far the end of a Child SA has come.
type deletion uint8

const (
	undeleted deletion = iota
	deleting           // our Delete waits for its turn or its answer
	deleted            // on both sides; a replaced one stays a moment in the data path
)

// inUse says whether a Child SA counts: it is not replaced, redundant or on its way out.
func (c *childSA) inUse() bool {
	return (c.use == standby || c.use == active) && c.deletion == undeleted
}

// mayBeRekeyed says whether a Child SA can get a successor.
func (c *childSA) mayBeRekeyed() bool { return c.inUse() && c.successor == nil }

func (c *childSA) info() ChildInfo {
	return ChildInfo{
		ID: c.id, SPIIn: c.spiIn, SPIOut: c.spiOut, Algorithms: c.alg, Local: c.local, Remote: c.remote,
		Established: c.established, RekeyAt: c.rekeyAt, Active: c.use == active,
	}
}

// zero overwrites keys that the data path has not been given.
func (c *childSA) zero() {
	c.in.Zero()
	c.out.Zero()
}

// nonces are those of one exchange; the lowest of two exchanges' four decides a
// collision (RFC 7296 §2.8.1, §2.8.2).
type nonces struct{ i, r []byte }

// lower says whether the lowest nonce of n is lower than that of o.
func (n nonces) lower(o nonces) bool { return lowestNonce(n).less(lowestNonce(o)) }

type nonce []byte

func (a nonce) less(b nonce) bool { return string(a) < string(b) }

func lowestNonce(n nonces) nonce {
	if nonce(n.r).less(n.i) {
		return n.r
	}
	return n.i
}

// childOffer is a Child SA that we ask for.
type childOffer struct {
	spi           uint32
	local, remote []esp.Selector
	sa            *message.SA
	ni            []byte // nil in IKE_AUTH
}

func (s *Session) newOffer(local, remote []esp.Selector) *childOffer {
	if local == nil {
		local = anySelectors()
	}
	if remote == nil {
		remote = anySelectors()
	}
	return &childOffer{spi: s.engine.cfg.NewESPSPI(), local: local, remote: remote}
}

// addTo adds SA, in between what the exchange needs, and the traffic selectors.
func (o *childOffer) addTo(x *Exchange, sa *message.SA, between ...message.Payload) {
	o.sa = sa
	x.Add(sa)
	x.Add(between...)
	x.Add(toWire(o.local, false), toWire(o.remote, true))
}

// chosenKE is the key exchange method of the proposal that the responder chose. It is
// none also for an answer that accept refuses.
func (o *childOffer) chosenKE(x *Exchange) suite.KEID {
	answer, ok := message.Find[*message.SA](x.In)
	if !ok {
		return suite.KENone
	}
	alg, _, err := message.CheckESPChoice(o.sa.Proposals, answer)
	if err != nil {
		return suite.KENone
	}
	return alg.KE
}

// accept takes the responder's answer. The secret is that of a key exchange in the
// same exchange, or nil.
func (o *childOffer) accept(now time.Time, sa *ikeSA, x *Exchange, secret []byte) (*childSA, error) {
	s := sa.session
	if n := message.FindErrorNotify(x.In); n != nil {
		return nil, &NotifyError{Kind: n.Kind, Data: n.Data, Reason: reasonFor(n.Kind), Detail: "the peer refused the Child SA"}
	}
	answer, ok1 := message.Find[*message.SA](x.In)
	tsi, tsr := findTS(x.In)
	if !ok1 || tsi == nil || tsr == nil {
		return nil, errors.New("answer without SA, TSi or TSr")
	}
	alg, spi, err := message.CheckESPChoice(o.sa.Proposals, answer)
	if err != nil {
		return nil, err
	}
	local, remote := fromWire(tsi.Selectors), fromWire(tsr.Selectors)
	if !within(local, o.local) || !within(remote, o.remote) {
		return nil, errors.New("the peer's traffic selectors are wider than what was offered")
	}
	if sa.keys == nil {
		return nil, errors.New("the IKE SA of the exchange is gone")
	}
	if slices.Contains(s.deletedEarly, spi) {
		return nil, errors.New("the peer has deleted the Child SA already")
	}
	ni, nr := o.ni, []byte(nil)
	if ni == nil {
		ni, nr = sa.init.ni, sa.init.nr
	} else if n, ok := message.Find[*message.Nonce](x.In); ok {
		nr = n.Data
	} else {
		return nil, errors.New("answer without Nonce")
	}
	c := s.newChild(now, alg, o.spi, spi, local, remote)
	c.tfc = x.Notify(message.ESPTFCPaddingNotSupported) == nil
	c.out, c.in = sa.childKeys(alg, secret, ni, nr)
	c.label()
	return c, nil
}

func (s *Session) newChild(now time.Time, alg suite.ESPAlgorithms, spiIn, spiOut uint32, local, remote []esp.Selector) *childSA {
	c := &childSA{
		id: s.engine.cfg.NewChildID(), spiIn: spiIn, spiOut: spiOut, alg: alg, local: local, remote: remote,
		established: now, rekeyAt: s.jittered(now, s.policy.RekeyChild),
	}
	if p := s.policy.RekeyChild; p > 0 {
		c.expireAt = now.Add(p + p/2 + expireMargin)
	}
	return c
}

// label writes the SPIs into the descriptions.
func (c *childSA) label() { c.in.SPI, c.out.SPI = c.spiIn, c.spiOut }

// install hands a Child SA to the data path.
func (s *Session) install(now time.Time, c *childSA, activate bool) {
	if !s.hosted {
		s.hosted = true
		s.mtu.started(now, s.path.Pair)
		s.carried = s.path
		s.Act(AddHost{Session: s.id, Path: s.path})
	}
	s.children = append(s.children, c)
	s.engine.children[c.id] = s
	s.childlessBy = time.Time{}
	s.Act(AddChild{Session: s.id, Child: esp.Child{
		ID: c.id, Host: esp.HostID(s.id), In: c.in, Out: c.out, Local: c.local, Remote: c.remote,
		ReplayWindow: s.policy.ReplayWindow, Lifetime: s.policy.Lifetime, TFC: c.tfc,
	}})
	c.in, c.out = esp.SA{}, esp.SA{}
	if activate {
		s.activate(c)
	}
}

// activate starts to send on a Child SA.
func (s *Session) activate(c *childSA) {
	if c.use != standby || c.deletion != undeleted {
		return
	}
	c.use = active
	s.Act(ActivateChild{Session: s.id, Child: c.id})
}

// remove forgets a Child SA; with a successor the data path keeps it a moment for
// packets on their way.
func (s *Session) remove(now time.Time, c *childSA) {
	c.deletion = deleted
	if c.use == replaced && s.state != Gone {
		c.removeAt = now.Add(removalDelay)
		return
	}
	s.removeNow(c)
}

func (s *Session) removeNow(c *childSA) {
	for i, o := range s.children {
		if o == c {
			s.children = append(s.children[:i:i], s.children[i+1:]...)
			break
		}
	}
	for _, o := range s.children {
		if o.successor == c {
			o.successor = nil      // it may be rekeyed again
			if c.use == replaced { // so the peer had sent on it
				o.use = replaced
			}
		}
	}
	delete(s.engine.children, c.id)
	s.Act(RemoveChild{Session: s.id, Child: c.id})
}

// live counts the Child SAs in use.
func (s *Session) live() int {
	n := 0
	for _, c := range s.children {
		if c.inUse() {
			n++
		}
	}
	return n
}

func (s *Session) childByOutbound(spi uint32) *childSA {
	for _, c := range s.children {
		if c.spiOut == spi && c.deletion != deleted {
			return c
		}
	}
	return nil
}

// answerOptions are what CREATE_CHILD_SA adds to a request for a Child SA.
type answerOptions struct {
	ni, nr, secret []byte
	share          *message.KE
}

// childAnswer is a Child SA that the peer asked for.
type childAnswer struct {
	child    *childSA
	sa       *message.SA
	between  []message.Payload
	tsi, tsr *message.TS
}

func (a *childAnswer) addTo(x *Exchange) {
	x.Add(a.sa)
	x.Add(a.between...)
	x.Add(a.tsi, a.tsr)
}

// chooseESP picks from the peer's proposals.
func (s *Session) chooseESP(x *Exchange, ignoreKE bool) (offered []message.Proposal, chosen message.Proposal, alg suite.ESPAlgorithms, err error) {
	offer, ok := message.Find[*message.SA](x.In)
	if !ok {
		return nil, chosen, alg, &NotifyError{Kind: message.InvalidSyntax, Reason: reason.MalformedMessage, Detail: "no SA payload"}
	}
	number, alg, err := message.ChooseESP(offer.Proposals, s.policy.ESP, ignoreKE, sentMethod(x)...)
	if err != nil {
		return nil, chosen, alg, &NotifyError{Kind: message.NoProposalChosen, Reason: reason.NoProposalChosen, Detail: err.Error()}
	}
	for _, p := range offer.Proposals {
		if p.Number == number && len(p.SPI) == 4 {
			return offer.Proposals, p, alg, nil
		}
	}
	return nil, chosen, alg, &NotifyError{Kind: message.InvalidSyntax, Reason: reason.MalformedMessage, Detail: "proposal without SPI"}
}

// answerChild makes the Child SA that the peer asks for: algorithms, selectors,
// keys. A rekey keeps to the selectors of the old one.
func (s *Session) answerChild(now time.Time, x *Exchange, old *childSA, o answerOptions) (*childAnswer, error) {
	if len(s.children) >= maxChildren {
		return nil, &NotifyError{Kind: message.NoAdditionalSAs, Reason: reason.NoAdditionalSAs, Detail: fmt.Sprintf("%d Child SAs exist", len(s.children))}
	}
	inAuth := x.Type == message.IKEAuth
	offered, chosen, alg, err := s.chooseESP(x, inAuth)
	if err != nil {
		return nil, err
	}
	tsi, tsr := findTS(x.In)
	if tsi == nil || tsr == nil {
		return nil, &NotifyError{Kind: message.InvalidSyntax, Reason: reason.MalformedMessage, Detail: "no traffic selectors"}
	}
	ours, theirs := s.allowedSelectors(old)
	remote, local := narrow(fromWire(tsi.Selectors), theirs), narrow(fromWire(tsr.Selectors), ours)
	if len(remote) == 0 || len(local) == 0 {
		return nil, &NotifyError{Kind: message.TSUnacceptable, Reason: reason.TSUnacceptable,
			Detail: fmt.Sprintf("asked for %d and %d selectors, none of ours among them", len(tsi.Selectors), len(tsr.Selectors))}
	}
	sa := s.sa
	if inAuth {
		o.ni, o.nr = sa.init.ni, sa.init.nr
	}
	spi := s.engine.cfg.NewESPSPI()
	c := s.newChild(now, alg, spi, binary.BigEndian.Uint32(chosen.SPI), local, remote)
	c.tfc = x.Notify(message.ESPTFCPaddingNotSupported) == nil
	c.in, c.out = sa.childKeys(alg, o.secret, o.ni, o.nr)
	c.label()
	a := &childAnswer{child: c, tsi: toWire(remote, false), tsr: toWire(local, true)}
	a.sa = message.AnswerESP(offered, chosen.Number, alg, spi)
	if !inAuth {
		a.between = append(a.between, &message.Nonce{Data: o.nr})
		if o.share != nil {
			a.between = append(a.between, o.share)
		}
	}
	return a, nil
}

// allowedSelectors are what a Child SA may cover: our networks, and the peer's
// assigned addresses or configured networks.
func (s *Session) allowedSelectors(old *childSA) (ours, theirs []esp.Selector) {
	if old != nil {
		return old.local, old.remote
	}
	ours = s.policy.LocalSelectors
	if s.localSelectors != nil {
		ours = s.localSelectors
	}
	theirs = s.policy.RemoteSelectors
	if s.role == Initiator {
		if ours == nil {
			ours = addressSelectors(s.config.Addresses)
		}
		if theirs == nil {
			theirs = anySelectors()
		}
		return ours, theirs
	}
	if theirs == nil {
		theirs = addressSelectors(s.config.Addresses)
	}
	if ours == nil {
		ours = anySelectors()
	}
	return ours, theirs
}

// findTS returns TSi and TSr, nil where missing.
func findTS(ps []message.Payload) (tsi, tsr *message.TS) {
	return message.FindTS(ps, false), message.FindTS(ps, true)
}
