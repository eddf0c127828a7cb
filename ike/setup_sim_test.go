package ike

import (
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/internal/simnet"
)

// simSetup is what a seed decides before a run begins.
type simSetup struct {
	Seed            uint64
	Clients, Shards int
	Auth            string
	IKE, ESP        [2]string // of client and gateway
	FragmentSize    int
	Cookies         bool
	NAT             []simNATKind
	Native, V6      bool
	Crash           bool
	RekeyIKE        time.Duration
	RekeyChild      time.Duration
	Conditions      simnet.Conditions
	WorkDelay       time.Duration
	Hostile         bool
	Active          time.Duration // how long things happen
}

type simNATKind int

const (
	noNAT simNATKind = iota
	ownNAT
	sharedNAT
)

// drawSetup makes a setup from a seed.
func drawSetup(seed uint64) simSetup {
	rng := rand.New(rand.NewPCG(seed, 99))
	chance := func(percent int) bool { return rng.IntN(100) < percent }
	ms := func(n int) time.Duration { return time.Duration(rng.IntN(n+1)) * time.Millisecond }
	ike := [][2]string{
		{"aes256gcm16-prfsha256-x25519", "aes256gcm16-prfsha256-x25519,aes256-sha256-x25519"},
		{"aes128gcm16-prfsha256-ecp256-x25519", "aes128gcm16-prfsha256-x25519"}, // INVALID_KE_PAYLOAD
		{"chacha20poly1305-prfsha512-x25519", "chacha20poly1305-prfsha512-x25519"},
		{"aes256-sha384-x25519", "aes256-sha384-x25519"},
	}
	esps := [][2]string{
		{"aes256gcm16", "aes256gcm16"},
		{"aes256gcm16-x25519,aes256gcm16", "aes256gcm16-x25519,aes256gcm16"},
		{"aes128gcm16-ecp256-x25519", "aes128gcm16-x25519"}, // INVALID_KE_PAYLOAD in a rekey
		{"chacha20poly1305-noesn", "chacha20poly1305-noesn"},
		{"aes128-sha256", "aes128-sha256"},
	}
	s := simSetup{
		Seed: seed, Clients: 1 + rng.IntN(3), Shards: 1 + rng.IntN(4),
		Auth: "psk",
		IKE:  ike[rng.IntN(len(ike))], ESP: esps[rng.IntN(len(esps))],
		Cookies: chance(40), V6: chance(20), Native: chance(15), Crash: chance(30),
		Conditions: simnet.Conditions{
			Loss: float64(rng.IntN(21)) / 100, Delay: ms(80), Jitter: ms(60),
			Reorder: float64(rng.IntN(11)) / 100, ReorderDelay: ms(400), Duplicate: float64(rng.IntN(11)) / 100,
		},
		Active: 20*time.Second + ms(40_000),
	}
	if chance(25) {
		s.Auth = "ed25519"
	}
	if chance(25) {
		s.FragmentSize = 180 + rng.IntN(400)
	}
	if chance(15) {
		s.Conditions.Corrupt = float64(1+rng.IntN(5)) / 100
	}
	if chance(50) {
		s.WorkDelay = time.Millisecond + ms(60)
	}
	if chance(40) {
		s.RekeyIKE, s.RekeyChild = 15*time.Second+ms(30_000), 8*time.Second+ms(20_000)
	}
	for range s.Clients {
		kind := noNAT
		if !s.V6 {
			kind = simNATKind(rng.IntN(3))
		}
		s.NAT = append(s.NAT, kind)
	}
	s.Hostile = chance(25)
	return s
}

// simCredentials are certificates that follow from nothing but this code, so that
// a run with them repeats.
var simCredentials = sync.OnceValues(func() ([]auth.Local, error) {
	key := func(name string) crypto.Signer {
		seed := make([]byte, ed25519.SeedSize)
		copy(seed, "simulation "+name)
		return ed25519.NewKeyFromSeed(seed)
	}
	var serial int64
	issue := func(tmpl, parent *x509.Certificate, pub crypto.PublicKey) (*x509.Certificate, error) {
		serial++
		tmpl.SerialNumber = big.NewInt(serial)
		tmpl.NotBefore, tmpl.NotAfter = testStart.Add(-time.Hour), testStart.Add(24*time.Hour)
		der, err := x509.CreateCertificate(nil, tmpl, parent, pub, key("CA"))
		if err != nil {
			return nil, err
		}
		return x509.ParseCertificate(der)
	}
	root := &x509.Certificate{Subject: pkix.Name{CommonName: "simulation CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign}
	root, err := issue(root, root, key("CA").Public())
	if err != nil {
		return nil, err
	}
	out := []auth.Local{{Chain: []*x509.Certificate{root}}}
	for _, id := range []string{"vpn.example.test", "c0@example.test", "c1@example.test", "c2@example.test"} {
		tmpl := &x509.Certificate{Subject: pkix.Name{CommonName: id}, KeyUsage: x509.KeyUsageDigitalSignature}
		if len(out) == 1 {
			tmpl.DNSNames, tmpl.ExtKeyUsage = []string{id}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		} else {
			tmpl.EmailAddresses, tmpl.ExtKeyUsage = []string{id}, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}
		c, err := issue(tmpl, root, key(id).Public())
		if err != nil {
			return nil, err
		}
		out = append(out, auth.Local{ID: mustIdentity(id), Key: key(id), Chain: []*x509.Certificate{c}})
	}
	return out, nil
})

// policies makes the gateway's policy (client < 0) or a client's.
func (s *simSetup) policy(t testing.TB, client int) *Policy {
	p := serverPolicy()
	side, id := 1, "vpn.example.test"
	if client >= 0 {
		p = clientPolicy()
		side, id = 0, fmt.Sprintf("c%d@example.test", client)
		p.Local.ID = mustIdentity(id)
		p.RemoteSelectors = []esp.Selector{esp.PrefixSelector(innerNet), esp.PrefixSelector(simExtraNet)}
	} else {
		p.LocalSelectors = []esp.Selector{esp.PrefixSelector(innerNet), esp.PrefixSelector(simExtraNet)}
	}
	if s.Auth != "psk" {
		all, err := simCredentials()
		if err != nil {
			t.Fatal(err)
		}
		p.Local = all[client+2]
		peer, usage := "*@example.test", x509.ExtKeyUsageClientAuth
		if client >= 0 {
			peer, usage = "vpn.example.test", x509.ExtKeyUsageServerAuth
		}
		p.Remote = auth.Remote{ID: mustPattern(peer), AllowSignature: true, Roots: all[0].Chain, Usage: usage}
	}
	p.IKE, p.ESP = mustIKE(s.IKE[side]), mustESP(s.ESP[side])
	p.Fragmentation, p.FragmentSize = true, s.FragmentSize
	p.NativeESP = s.Native
	p.LivenessDelay, p.PeerTimeout = 20*time.Second, 120*time.Second
	p.RekeyIKE, p.RekeyChild, p.Jitter = s.RekeyIKE, s.RekeyChild, 0.2
	return p
}

var simExtraNet = netip.MustParsePrefix("10.99.0.0/16")

// buildSim draws the machines and the network of a setup.
func buildSim(t testing.TB, s simSetup) *simWorld {
	w := newSimWorld(t, s)
	r := &ResponderConfig{Policy: s.policy(t, -1), CookieThreshold: -1}
	if s.Cookies {
		r.CookieThreshold = 1
	}
	cfg := Config{Responder: r}
	if s.Crash {
		cfg.CrashSecret = []byte("a secret that survives a restart, of 40 octets")
	}
	addr := simServerAddr
	if s.V6 {
		addr = simServerAddr6
	}
	// Each direction has the conditions once: on the links of the clients.
	w.server = w.attach("gateway", addr, simnet.LinkConfig{Name: "wan"}, s.Shards, cfg)
	w.server.server, w.server.policy = true, r.Policy
	var shared *simnet.NAT
	for i, kind := range s.NAT {
		a := netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)})
		if s.V6 {
			a = netip.MustParseAddr(fmt.Sprintf("2001:db8:2::%d", i+1))
		}
		link := simnet.LinkConfig{Name: "wifi", Out: s.Conditions, In: s.Conditions}
		switch kind {
		case ownNAT:
			link.NAT = w.net.AddNAT(w.drawNAT(fmt.Sprintf("nat%d", i), a))
			a = netip.AddrFrom4([4]byte{192, 168, byte(10 + i), 2})
		case sharedNAT:
			if shared == nil {
				shared = w.net.AddNAT(w.drawNAT("natS", netip.MustParseAddr("192.0.2.200")))
			}
			link.NAT = shared
			a = netip.AddrFrom4([4]byte{192, 168, 1, byte(2 + i)})
		}
		c := w.attach(fmt.Sprintf("c%d", i), a, link, 1, Config{})
		c.policy = s.policy(t, i)
		c.wanted = true
		w.ledger.verify(c, netip.AddrPortFrom(addr, 500))
		w.ledger.verify(c, netip.AddrPortFrom(addr, 4500))
		w.clients = append(w.clients, c)
	}
	if s.Hostile {
		w.hostile = newSimAttacker(w)
	}
	return w
}

func (w *simWorld) drawNAT(name string, public netip.Addr) simnet.NATConfig {
	behaviours := []simnet.Behaviour{simnet.EndpointIndependent, simnet.AddressDependent, simnet.AddressAndPortDependent}
	return simnet.NATConfig{
		Name: name, Public: public,
		Mapping: behaviours[w.rng.IntN(3)], Filtering: behaviours[w.rng.IntN(3)],
		Lifetime: 3 * time.Minute, PreservePort: w.rng.IntN(2) == 0,
	}
}
