package client

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/internal/profile"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// Policy makes of a profile what the IKE engine works by. What does not fit together
// is added to problems, with prefix before the keys; warnings are what may be wrong,
// and what the gateway will judge: a certificate that has expired, for instance.
func Policy(p *profile.Profile, now time.Time, prefix string, problems *config.Problems) (policy *ike.Policy, warnings []string) {
	b := policyBuilder{Profile: p, now: now, prefix: prefix, problems: problems}
	policy = &ike.Policy{
		ReplayWindow:  p.Tunnel.ReplayWindow,
		Fragmentation: p.Tunnel.Fragmentation,
		NativeESP:     p.Tunnel.NativeESP,
		ProhibitNAT:   !p.Tunnel.NATTraversal,
		Childless:     childlessModes[p.Tunnel.Childless],

		KeepaliveInterval: p.Roaming.Keepalive.Std(),

		DiscoverPathMTU: p.Tunnel.PathMTU == 0,
		PathMTU:         p.Tunnel.PathMTU,
		MaxPathMTU:      ike.MaxPathMTUFor(p.Tunnel.MTU),
		// Gateways that know several authorities do not always ask.
		SendCertificates: true,
	}
	p.Timers.Apply(policy)
	// The time an exchange may take to fail is the user's choice for every exchange.
	policy.ConnectTimeout = policy.PeerTimeout
	if policy.ConnectTimeout == 0 || policy.ConnectTimeout > ike.DefaultConnectTimeout {
		policy.ConnectTimeout = ike.DefaultConnectTimeout
	}
	b.proposals(policy)
	b.selectors(policy)
	b.authentication(policy)
	return policy, b.warnings
}

var childlessModes = map[profile.Childless]ike.Childless{
	profile.ChildlessAllow: ike.ChildlessAllow,
	profile.ChildlessNever: ike.ChildlessNever,
	profile.ChildlessForce: ike.ChildlessForce,
}

type policyBuilder struct {
	*profile.Profile
	now      time.Time
	prefix   string
	problems *config.Problems
	warnings []string
}

func (b *policyBuilder) add(key string, err error) { b.problems.Add(b.prefix+key, "%v", err) }

func (b *policyBuilder) warn(format string, args ...any) {
	b.warnings = append(b.warnings, fmt.Sprintf(format, args...))
}

func (b *policyBuilder) proposals(policy *ike.Policy) {
	var err error
	if policy.IKE, err = suite.ParseIKEProposals(b.Crypto.IKE); err != nil {
		b.add("crypto.ike", err)
	}
	if policy.ESP, err = suite.ParseESPProposals(b.Crypto.ESP); err != nil {
		b.add("crypto.esp", err)
	}
}

// selectors asks for the profile's networks; the gateway narrows them. Inner
// addresses are asked for in the families that are wanted.
func (b *policyBuilder) selectors(policy *ike.Policy) {
	for _, n := range b.Tunnel.Routes.Networks() {
		policy.RemoteSelectors = append(policy.RemoteSelectors, esp.PrefixSelector(n))
		if n.Addr().Is4() {
			policy.RequestIPv4 = true
		} else {
			policy.RequestIPv6 = true
		}
	}
}

func (b *policyBuilder) authentication(policy *ike.Policy) {
	pattern, err := auth.ParsePattern(b.GatewayID())
	if err != nil {
		b.add("remote_id", err)
	}
	policy.Remote = auth.Remote{ID: pattern, Usage: x509.ExtKeyUsageServerAuth}
	if b.Method() == profile.PSK {
		b.sharedKey(policy)
		return
	}
	b.certificates(policy)
}

func (b *policyBuilder) sharedKey(policy *ike.Policy) {
	id, err := auth.ParseIdentity(b.ID)
	if err != nil && b.ID != "" { // a missing one has been told
		b.add("id", err)
	}
	psk := b.Auth.PSK.Bytes()
	policy.Local = auth.Local{ID: id, PSK: psk}
	policy.Remote.AllowPSK = true
	policy.Remote.PSK = func(auth.Identity) ([]byte, bool) { return psk, true }
	if len(psk) > 0 && len(psk) < minPSK {
		b.warn("the pre-shared key has %d octets only: whoever records a connection can guess it; use a random one of %d or more", len(psk), minPSK)
	}
}

// minPSK is the length from which a random key holds against guessing with recorded
// exchanges (RFC 7296 §2.15 asks for as much unpredictability as the strongest key
// negotiated; 16 octets are 128 bits).
const minPSK = 16

func (b *policyBuilder) certificates(policy *ike.Policy) {
	policy.Remote.AllowSignature = true
	policy.Remote.Roots = b.load("auth.ca", b.Auth.CA)
	chain := b.load("auth.certificate", b.Auth.Certificate)
	chain = append(chain, b.load("auth.chain", b.Auth.Chain)...)
	if b.Auth.CRL != "" {
		lists, err := auth.LoadCRLPEM([]byte(b.Auth.CRL))
		if err != nil {
			b.add("auth.crl", err)
		}
		policy.Remote.CRLs = lists
	}
	policy.Local.Chain = chain
	if b.Auth.Key.IsZero() || len(chain) == 0 {
		return // told already
	}
	key, err := auth.LoadKeyPEM(b.Auth.Key.Bytes())
	if err != nil {
		b.add("auth.key", err)
		return
	}
	policy.Local.Key = key
	policy.Local.ID = b.ownIdentity(chain[0])
	b.judgeOwn(&policy.Local)
}

// load reads certificates from a value; a missing one has been told.
func (b *policyBuilder) load(key, text string) []*x509.Certificate {
	if text == "" {
		return nil
	}
	list, err := auth.LoadCertificatesPEM([]byte(text))
	if err != nil {
		b.add(key, err)
	}
	return list
}

// ownIdentity is the profile's identity, or the first name in the certificate.
func (b *policyBuilder) ownIdentity(own *x509.Certificate) auth.Identity {
	text := b.ID
	switch {
	case text != "":
	case len(own.EmailAddresses) > 0:
		text = "email:" + own.EmailAddresses[0]
	case len(own.DNSNames) > 0:
		text = "fqdn:" + own.DNSNames[0]
	case len(own.IPAddresses) > 0:
		text = own.IPAddresses[0].String()
	default:
		text = "dn:" + own.Subject.String()
	}
	id, err := auth.ParseIdentity(text)
	if err != nil {
		b.add("id", err)
	}
	return id
}

// judgeOwn looks at our own credentials as the gateway will. A key that does not
// belong to the certificate can never work; the rest is the gateway's decision.
func (b *policyBuilder) judgeOwn(local *auth.Local) {
	own := local.Chain[0]
	public, ok := local.Key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if ok && !public.Equal(own.PublicKey) {
		b.problems.Add(b.prefix+"auth.key", "does not belong to auth.certificate")
		return
	}
	if b.now.After(own.NotAfter) {
		b.warn("our certificate has expired on %s: the gateway will refuse it; ask for a new profile", own.NotAfter.Format(time.DateOnly))
	} else if b.now.Before(own.NotBefore) {
		b.warn("our certificate is not valid before %s: is the clock of this machine right?", own.NotBefore.Format(time.DateTime))
	} else if err := auth.MatchCertificate(own, local.ID); err != nil {
		b.warn("%v", err)
	}
}
