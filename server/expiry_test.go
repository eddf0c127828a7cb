package server

import (
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const day = 24 * time.Hour

func TestExpiryOfAuthorityAndUsersIsTold(t *testing.T) {
	a := newAdmin(t)
	u, err := a.AddUser("alice", UserOptions{Lifetime: 300 * day})
	if err != nil {
		t.Fatal(err)
	}
	p, err := a.openAuthority()
	if err != nil {
		t.Fatal(err)
	}
	ca, alice := p.Certificate().NotAfter, *u.Expires
	for _, tt := range []struct {
		what     string
		at       time.Time
		want     string
		unwanted string
	}{
		{"now", time.Now(), "", "expire"},
		{"long before", alice.Add(-40 * day), "", "alice"},
		{"alice's certificate ends soon", alice.Add(-20 * day), "alice (" + alice.Format(time.DateOnly) + ")", "authority"},
		{"it has ended", alice.Add(20 * day), "alice (" + alice.Format(time.DateOnly) + ")", "authority"},
		{"it has ended long ago", alice.Add(200 * day), "", "alice"},
		{"the authority ends in half a year", ca.Add(-170 * day), "the certificate authority expires on " + ca.Format(time.DateOnly), "alice"},
		{"the authority has ended", ca.Add(day), "the certificate authority has expired on " + ca.Format(time.DateOnly), "alice"},
		{"the authority has ended long ago", ca.Add(400 * day), "the certificate authority has expired on", "alice"},
	} {
		s, err := Load(a.Path, tt.at)
		if err != nil {
			t.Errorf("%s: %v", tt.what, err)
			continue
		}
		if got := strings.Join(s.Warnings, "\n"); !strings.Contains(got, tt.want) || strings.Contains(got, tt.unwanted) {
			t.Errorf("%s: warnings\n%s\nwant %q, and nothing of %q", tt.what, got, tt.want, tt.unwanted)
		}
	}
	for _, name := range strings.Fields("b c d e f g") {
		if _, err := a.AddUser(name, UserOptions{Lifetime: 10 * day}); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(mustLoad(t, a).Warnings, "\n"); strings.Count(got, "(") != maxNamed || !strings.Contains(got, "and 1 more") {
		t.Errorf("warnings %s", got)
	}
}

// A gateway that runs for months tells when a certificate comes to its end, once.
func TestExpiryIsToldWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t, pskConfig, nil)
		dir := filepath.Dir(g.file)
		r, err := Setup(SetupOptions{Name: "vpn.example.test", ConfigDir: dir, StateDir: filepath.Join(dir, "state"), Force: true})
		if err != nil {
			t.Fatal(err)
		}
		g.start(1)
		refresh := func() {
			t.Helper()
			if err := g.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		refresh()
		if strings.Contains(g.log.String(), "expires on") {
			t.Errorf("too early: %s", g.log)
		}
		time.Sleep(time.Until(r.Certificate.NotAfter) - 20*day)
		refresh()
		refresh()
		if n := strings.Count(g.log.String(), "expires on"); n != 1 {
			t.Errorf("told %d times: %s", n, g.log)
		}
		if s, err := g.Status(t.Context()); err != nil || len(s.Warnings) != 1 {
			t.Errorf("status %+v, %v", s, err)
		}
		g.stop()
	})
}
