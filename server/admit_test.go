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
