package server

import (
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/internal/profile"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/locator"
	"github.com/wayfarer-vpn/wayfarer/pki"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// holdAnswers keeps what the gateway sends until it is told to let it go.
func (g *gateway) holdAnswers() (letGo func()) {
	type answer struct {
		pair locator.Pair
		data []byte
	}
	var mu sync.Mutex
	hold, held := true, []answer{}
	deliver := func(a answer) {
		if l, ok := g.wire.Load(a.pair.Remote.Addr()); ok {
			l.(*laptop).receive(a.pair.Reverse(), a.data)
		}
	}
	g.answer = func(pair locator.Pair, data []byte) {
		mu.Lock()
		defer mu.Unlock()
		a := answer{pair, append([]byte(nil), data...)}
		if hold {
			held = append(held, a)
			return
		}
		deliver(a)
	}
	return func() {
		mu.Lock()
		defer mu.Unlock()
		hold = false
		for _, a := range held {
			deliver(a)
		}
	}
}

// begin sends the first request of a session.
func (l *laptop) begin() {
	l.g.t.Helper()
	pair := locator.Pair{Local: netip.AddrPortFrom(l.addr, 500), Remote: netip.AddrPortFrom(gatewayAddress, 500)}
	if err := l.Call(l.g.t.Context(), l.initiate(pair)); err != nil {
		l.g.t.Fatal(err)
	}
	synctest.Wait()
}

const (
	twoKeys    = "[[psk]]\nid = \"alice@example.test\"\nsecret = \"one\"\n[[psk]]\nid = \"bob@example.test\"\nsecret = \"two\"\n"
	aliceGone  = "[[psk]]\nid = \"bob@example.test\"\nsecret = \"two\"\n"
	aliceNew   = "[[psk]]\nid = \"alice@example.test\"\nsecret = \"new\"\n[[psk]]\nid = \"bob@example.test\"\nsecret = \"two\"\n"
	defaultKey = "[[psk]]\nid = \"*\"\nsecret = \"open sesame\"\n"
)

// The proof of a half-open IKE SA is checked by the keys that were in force when it
// began. Who has been removed since must not get in all the same.
func TestRemovedUserDoesNotComeInByAHalfOpenSA(t *testing.T) {
	for name, tt := range map[string]struct {
		later string
		want  reason.Code // empty: comes in
	}{
		"key removed":     {aliceGone, reason.UserUnknown},
		"key changed":     {aliceNew, reason.UserUnknown},
		"not admitted":    {strings.Replace(twoKeys, "[[psk]]", "remote_id = [\"bob@example.test\"]\n[[psk]]", 1), reason.IDMismatch},
		"nothing changed": {twoKeys, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGateway(t, pskConfig, nil)
				g.edit("remote_id = [\"*@example.test\", \"*.example.test\"]\n", "")
				g.edit(defaultKey, twoKeys)
				letGo := g.holdAnswers()
				g.start(2)
				l := g.laptop("192.0.2.10", "alice@example.test", "one")
				l.begin()
				g.edit(twoKeys, tt.later)
				if _, err := g.Reload(t.Context()); err != nil {
					t.Fatal(err)
				}
				letGo()
				time.Sleep(5 * time.Second)
				checkComesIn(t, g, tt.want)
				l.crash()
				g.stop()
			})
		})
	}
}

func TestRevokedUserDoesNotComeInByAHalfOpenSA(t *testing.T) {
	for name, revoke := range map[string]bool{"revoked": true, "not revoked": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGateway(t, pskConfig, nil)
				dir := filepath.Dir(g.file)
				if _, err := Setup(SetupOptions{Name: "vpn.example.test", ConfigDir: dir, StateDir: filepath.Join(dir, "state"), Force: true}); err != nil {
					t.Fatal(err)
				}
				admin, err := OpenAdmin(g.file)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := admin.AddUser("alice", UserOptions{}); err != nil {
					t.Fatal(err)
				}
				policy := policyOf(t, admin, "alice")
				letGo := g.holdAnswers()
				g.start(2)
				l := g.laptopWith("192.0.2.10", policy)
				l.begin()
				var want reason.Code
				if revoke {
					want = reason.CertRevoked
					if _, err := admin.EndUser("alice", pki.KeyCompromise); err != nil {
						t.Fatal(err)
					}
				}
				if err := g.Refresh(t.Context()); err != nil {
					t.Fatal(err)
				}
				letGo()
				time.Sleep(5 * time.Second)
				checkComesIn(t, g, want)
				l.crash()
				g.stop()
			})
		})
	}
}

// policyOf is the policy of a client with a user's profile.
func policyOf(t *testing.T, a *Admin, user string) *ike.Policy {
	t.Helper()
	data, err := a.Profile(user)
	if err != nil {
		t.Fatal(err)
	}
	p, err := profile.Parse(user, data)
	if err != nil {
		t.Fatal(err)
	}
	local := auth.Local{}
	if local.ID, err = auth.ParseIdentity(p.ID); err != nil {
		t.Fatal(err)
	}
	if local.Chain, err = auth.LoadCertificatesPEM([]byte(p.Auth.Certificate)); err != nil {
		t.Fatal(err)
	}
	if local.Key, err = auth.LoadKeyPEM(p.Auth.Key.Bytes()); err != nil {
		t.Fatal(err)
	}
	roots, err := auth.LoadCertificatesPEM([]byte(p.Auth.CA))
	if err != nil {
		t.Fatal(err)
	}
	return &ike.Policy{
		Local: local, Remote: auth.Remote{ID: auth.Any(), AllowSignature: true, Roots: roots},
		IKE: suite.DefaultIKEProposals(), ESP: suite.DefaultESPProposals(),
		RequestIPv4: true, RequestIPv6: true,
	}
}

// checkComesIn checks that the one client was refused for a reason, or is in when there
// is none.
func checkComesIn(t *testing.T, g *gateway, why reason.Code) {
	t.Helper()
	if why == "" {
		if n := len(g.sessions()); n != 1 {
			t.Errorf("%d sessions\n%s", n, g.log)
		}
		return
	}
	if got := g.addresses(); got != "" || len(g.table.sessions) != 0 {
		t.Errorf("came in: %s", got)
	}
	if e := g.lastError.Load(); e == nil || e.Code != why {
		t.Errorf("last error %+v, want %s\n%s", e, why, g.log)
	}
	if used := g.leases.status()[0].InUse; used != 0 {
		t.Errorf("%d addresses in use", used)
	}
}

// With auth.unique = keep a session that lives is not replaced, and one whose client has
// crashed does not lock that client out.
func TestKeepSparesTheLivingOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t, pskConfig, nil)
		g.edit("[auth]\n", "[auth]\nunique = \"keep\"\n")
		g.start(3)
		const alice = "alice@example.test[10.30.0.1 fd00:30::1]"
		first := g.laptop("192.0.2.10", "alice@example.test", "open sesame")
		first.connect()
		// Elsewhere: another device. The first one answers, however often this one tries.
		second := g.laptop("192.0.2.11", "alice@example.test", "open sesame")
		for range 4 {
			if second.try() {
				t.Error("replaced a session that lives")
			}
			time.Sleep(time.Minute)
		}
		if got := g.addresses(); got != alice {
			t.Errorf("sessions: %s", got)
		}
		// Crashed and back at once, at the same address.
		first.crash()
		first = g.laptop("192.0.2.10", "alice@example.test", "open sesame")
		first.connect()
		if got := g.addresses(); got != alice {
			t.Errorf("sessions: %s", got)
		}
		// Crashed and back elsewhere: as soon as it shows that nobody answers any more.
		first.crash()
		if second.try() {
			t.Error("replaced a session of which nothing bad is known")
		}
		time.Sleep(30 * time.Second)
		second.connect()
		if got := g.addresses(); got != alice {
			t.Errorf("sessions: %s", got)
		}
		second.crash()
		g.stop()
	})
}

// An identity has a number of sessions and no more, whoever uses it.
func TestSessionsPerIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t, pskConfig, nil)
		g.edit("10.30.0.0/29", "10.30.0.0/24")
		g.edit("[auth]\n", "[limits]\nsessions_per_identity = 3\n[auth]\nunique = \"never\"\n")
		g.start(2)
		var all []*laptop
		add := func(name string) *laptop {
			l := g.laptop(seat(len(all)), name, "open sesame")
			all = append(all, l)
			return l
		}
		for range 3 {
			add("alice@example.test").connect()
		}
		fourth := add("alice@example.test")
		if fourth.try() {
			t.Errorf("a fourth session: %s", g.addresses())
		}
		time.Sleep(time.Minute)
		if e := g.lastError.Load(); e == nil || e.Code != reason.SessionLimit || !strings.Contains(e.Detail, "limits.sessions_per_identity") {
			t.Errorf("last error %+v", e)
		}
		add("bob@example.test").connect() // others have their own

		// One that is away gives way.
		all[1].crash()
		time.Sleep(2 * time.Minute)
		fourth.connect()
		const want = "alice@example.test[10.30.0.1 fd00:30::1] alice@example.test[10.30.0.2 fd00:30::2] alice@example.test[10.30.0.3 fd00:30::3] bob@example.test[10.30.0.4 fd00:30::4]"
		if got := g.addresses(); got != want {
			t.Errorf("sessions\n%s, want\n%s", got, want)
		}
		for i, l := range all {
			if i != 1 {
				l.crash()
			}
		}
		g.stop()
	})
}

// In a full pool an identity with several devices takes addresses from its own ones that
// are away, not from other people.
func TestFullPoolAndOneIdentityWithManyDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t, pskConfig, nil)
		g.edit("10.30.0.0/29", "10.30.0.0/30")
		g.edit("pool6 = \"fd00:30::/120\"\n", "")
		g.edit("[auth]\n", "[auth]\nunique = \"never\"\n")
		g.start(2)
		bob := g.laptop("192.0.2.10", "bob@example.test", "open sesame")
		bob.connect()
		bob.crash() // sleeps: the one that has been away for longest
		time.Sleep(time.Minute)
		first := g.laptop("192.0.2.11", "alice@example.test", "open sesame")
		first.connect()
		second := g.laptop("192.0.2.12", "alice@example.test", "open sesame")
		time.Sleep(time.Minute)
		if second.try() {
			t.Errorf("alice has taken bob's address: %s", g.addresses())
		}
		second.crash()
		time.Sleep(time.Minute)
		first.crash()
		time.Sleep(2 * time.Minute)
		third := g.laptop("192.0.2.13", "alice@example.test", "open sesame")
		third.connect()
		if got, want := g.addresses(), "alice@example.test[10.30.0.2] bob@example.test[10.30.0.1]"; got != want {
			t.Errorf("sessions %s, want %s", got, want)
		}
		// Who has none may take bob's.
		carol := g.laptop("192.0.2.14", "carol@example.test", "open sesame")
		carol.connect()
		if got, want := g.addresses(), "alice@example.test[10.30.0.2] carol@example.test[10.30.0.1]"; got != want {
			t.Errorf("sessions %s, want %s", got, want)
		}
		third.crash()
		carol.crash()
		g.stop()
	})
}
