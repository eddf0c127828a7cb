package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/locator"
	"github.com/wayfarer-vpn/wayfarer/server/store"
)

func TestASessionFromBeginningToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t, pskConfig, nil).start(2)
		events, end := g.Watch()
		l := g.laptop("192.0.2.10", "alice@example.test", "open sesame")
		if got := text(l.connect()); got != "[10.30.0.1 fd00:30::1]" {
			t.Errorf("addresses %s", got)
		}
		info := l.up[0].Info
		if text(info.Config.DNS) != "[10.20.0.2]" || strings.Join(info.Config.Domains, " ") != "corp.example.test" {
			t.Errorf("configuration %+v", info.Config)
		}
		g.plane.mu.Lock()
		g.plane.stats = esp.Stats{InBytes: 1000, OutBytes: 2000, LastIn: time.Now().Add(time.Hour)}
		g.plane.mu.Unlock()

		s := g.sessions()[0]
		hex := func(pattern, s string) bool { return regexp.MustCompile("^[0-9a-f]{" + pattern + "}$").MatchString(s) }
		if !hex("16", s.SPIi) || !hex("16", s.SPIr) || s.SPIi != info.SPIi.String() || s.SPIr != info.SPIr.String() {
			t.Errorf("SPIs %s %s, the laptop has %v %v", s.SPIi, s.SPIr, info.SPIi, info.SPIr)
		}
		c := s.Children[0]
		if !hex("8", c.SPIIn) || !hex("8", c.SPIOut) || strings.Join(c.Local, " ") != "10.20.0.0/24 fd00:20::/64" || strings.Join(c.Remote, " ") != "10.30.0.1/32 fd00:30::1/128" {
			t.Errorf("child %+v", c)
		}
		if s.Identity != "alice@example.test" || s.State != "established" || s.Remote != "192.0.2.10:4500" || s.Local != "203.0.113.10:4500" ||
			s.Traffic.InBytes != 1000 || !s.LastActivity.After(time.Now()) || s.Auth == "" || s.Algorithms == "" {
			t.Errorf("session %+v", s)
		}
		st, err := g.Status(t.Context())
		if err != nil || st.Sessions.Established != 1 || st.Pools[0].InUse != 1 || st.LastError != nil {
			t.Errorf("status %+v, %v", st, err)
		}

		if err := g.Disconnect(t.Context(), s.ID); err != nil {
			t.Error(err)
		}
		if err := g.Disconnect(t.Context(), 99999); reason.Of(err) != reason.NotFound {
			t.Errorf("disconnecting nobody: %v", err)
		}
		time.Sleep(5 * time.Second)
		if n := len(g.sessions()); n != 0 || len(g.plane.hosts)+len(g.plane.child) != 0 {
			t.Errorf("%d sessions, hosts %v, children %v are left", n, g.plane.hosts, g.plane.child)
		}
		if why := l.why(); why.Reason != reason.PeerDeleted {
			t.Errorf("the laptop was told %s", why.Reason)
		}
		for _, want := range []string{
			`msg="session up" session=`, `peer=alice@example.test`, `remote=192.0.2.10:4500`, `addresses="[10.30.0.1 fd00:30::1]"`,
			`msg="session down"`, `reason=admin-disconnect`, `in_bytes=1000 out_bytes=2000`,
		} {
			if !strings.Contains(g.log.String(), want) {
				t.Errorf("%s is not in the log:\n%s", want, g.log)
			}
		}
		if strings.Contains(g.log.String(), "sesame") {
			t.Error("the log holds the secret")
		}
		end()
		var kinds []string
		for len(events) > 0 {
			kinds = append(kinds, (<-events).Kind)
		}
		if strings.Join(kinds, " ") != "session-up session-down" {
			t.Errorf("events %v", kinds)
		}
		l.crash()
		g.stop()
	})
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		name, config    string
		id, secret      string
		want            reason.Code // at the gateway
		notify          string
		logged          string
		toldTheLaptopTo reason.Code
	}{
		{name: "wrong secret", id: "alice@example.test", secret: "wrong", want: reason.AuthFailedPSK, notify: "AUTHENTICATION_FAILED", logged: "alice@example.test"},
		{name: "no pattern admits it", id: "alice@elsewhere.test", secret: "open sesame", want: reason.IDMismatch, notify: "AUTHENTICATION_FAILED", logged: "no pattern of auth.remote_id admits alice@elsewhere.test"},
		{name: "no common proposal", config: `[crypto]` + "\n" + `ike = "aes256-sha384-ecp384"`, id: "alice@example.test", secret: "open sesame",
			want: reason.NoProposalChosen, notify: "NO_PROPOSAL_CHOSEN", logged: "192.0.2.10:500"},
		{name: "a control character in the name", id: "fqdn:a\x1b[31mb.example.test", secret: "open sesame", want: "", notify: "AUTHENTICATION_FAILED", logged: ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if strings.Contains(tt.id, "\x1b") {
					t.Skip("our own client refuses to be called that")
				}
				g := newGateway(t, pskConfig+tt.config, nil).start(2)
				l := g.laptop("192.0.2.10", tt.id, tt.secret)
				if l.try() {
					t.Fatal("was connected")
				}
				time.Sleep(time.Minute)
				e := g.lastError.Load()
				if e == nil || e.Code != tt.want || e.Notify != tt.notify || e.Remote.Addr() != l.addr {
					t.Errorf("last error %+v, want %s %s\n%s", e, tt.want, tt.notify, g.log)
				}
				if !strings.Contains(g.log.String(), "reason="+string(tt.want)) || !strings.Contains(g.log.String(), tt.logged) {
					t.Errorf("log: %s", g.log)
				}
				if len(g.sessions()) != 0 || len(g.table.sessions) != 0 || g.leases.status()[0].InUse != 0 {
					t.Errorf("something is left: %v", g.table.sessions)
				}
				l.crash()
				g.stop()
			})
		})
	}
}

// A laptop that crashed says that it has no other session: the old one goes without a
// word, and the same address is there for the new one. The old session may live in
// another shard.
func TestACrashedLaptopGetsItsAddressBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t, pskConfig, nil).start(4)
		want := ""
		for i := range 12 {
			l := g.laptop("192.0.2.10", "alice@example.test", "open sesame")
			got := text(l.connect())
			if want == "" {
				want = got
			}
			if got != want {
				t.Fatalf("attempt %d: %s, before %s", i, got, want)
			}
			if s := g.sessions(); len(s) != 1 {
				t.Fatalf("%d sessions: %s", len(s), g.addresses())
			}
			l.crash()
		}
		if n := strings.Count(g.log.String(), "reason=replaced-by-new-session"); n != 11 {
			t.Errorf("%d sessions were replaced, want 11", n)
		}
		g.stop()
	})
}

func TestUnique(t *testing.T) {
	for mode, want := range map[string]string{
		"never":   "alice@example.test[10.30.0.1 fd00:30::1] alice@example.test[10.30.0.2 fd00:30::2]",
		"replace": "alice@example.test[10.30.0.1 fd00:30::1]",
		"keep":    "alice@example.test[10.30.0.1 fd00:30::1]",
	} {
		t.Run(mode, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGateway(t, pskConfig, nil)
				g.edit("[auth]\n", "[auth]\nunique = \""+mode+"\"\n")
				g.start(3)
				first := g.laptop("192.0.2.10", "alice@example.test", "open sesame")
				first.connect()
				second := g.laptop("192.0.2.11", "alice@example.test", "open sesame")
				if ok := second.try(); ok != (mode != "keep") {
					t.Errorf("the second was connected: %v", ok)
				}
				time.Sleep(time.Second)
				if got := g.addresses(); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
				first.crash()
				second.crash()
				g.stop()
			})
		})
	}
}

func TestAddressesSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &kept{leases: map[netip.Addr]store.Lease{}}
		g := newGateway(t, pskConfig, k).start(1)
		bob := g.laptop("192.0.2.11", "bob@example.test", "open sesame")
		bob.connect()
		alice := g.laptop("192.0.2.10", "alice@example.test", "open sesame")
		want := text(alice.connect())
		alice.crash()
		bob.crash()
		g.stop()

		g = newGateway(t, pskConfig, k).start(2)
		// Domain names and e-mail addresses have no case (RFC 4945 §3.1.2, §3.1.3).
		alice = g.laptop("192.0.2.10", "Alice@EXAMPLE.test", "open sesame")
		if got := text(alice.connect()); got != want {
			t.Errorf("after the restart %s, before %s", got, want)
		}
		alice.crash()
		g.stop()
	})
}

func TestPoolExhausted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t, pskConfig, nil)
		g.edit("10.30.0.0/29", "10.30.0.0/30")
		g.edit("pool6 = \"fd00:30::/120\"\n", "")
		g.start(2)
		var all []*laptop
		for i, name := range []string{"a", "b", "c"} {
			l := g.laptop(seat(i), name+"@example.test", "open sesame")
			all = append(all, l)
			if ok := l.try(); ok != (i < 2) {
				t.Errorf("%s connected: %v", name, ok)
			}
		}
		time.Sleep(10 * time.Second)
		if e := g.lastError.Load(); e == nil || e.Code != reason.PoolExhausted || e.Notify != "INTERNAL_ADDRESS_FAILURE" {
			t.Errorf("last error %+v\n%s", e, g.log)
		}
		// One leaves, and there is room.
		s := g.sessions()
		if len(s) != 2 {
			t.Fatalf("sessions: %s", g.addresses())
		}
		if err := g.Disconnect(t.Context(), s[0].ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if got := text(all[2].connect()); got != text(s[0].Addresses) {
			t.Errorf("got %s", got)
		}
		for _, l := range all {
			l.crash()
		}
		g.stop()
	})
}

// TestAwayGiveWay: in a full pool a newcomer gets the address of the client that has been
// away for longest, and of nobody who is here.
func TestAwayGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t, pskConfig, nil)
		g.edit("pool6 = \"fd00:30::/120\"\n", "")
		g.start(2)
		var all []*laptop
		add := func() *laptop {
			i := len(all)
			l := g.laptop(seat(i), string(rune('a'+i))+"@example.test", "open sesame")
			all = append(all, l)
			return l
		}
		for range 6 {
			add().connect()
		}
		if add().try() {
			t.Fatalf("the pool is not full: %s", g.addresses())
		}
		address := map[string]netip.Addr{}
		for _, s := range g.sessions() {
			if len(s.Addresses) > 0 {
				address[s.Identity] = s.Addresses[0]
			}
		}
		// The second sleeps, later the fourth, in the middle of nowhere.
		all[1].crash()
		time.Sleep(2 * time.Minute)
		all[3].crash()
		time.Sleep(2 * time.Minute)
		for _, gone := range []string{"b@example.test", "d@example.test"} {
			if got := add().connect(); len(got) != 1 || got[0] != address[gone] {
				t.Errorf("got %v, not %v of %s\n%s", got, address[gone], gone, g.log)
			}
		}
		if add().try() {
			t.Error("somebody who is here gave way")
		}
		for i, l := range all {
			if i != 1 && i != 3 {
				l.crash()
			}
		}
		g.stop()
	})
}

// The end of the daemon tells every client, and is not held up by those that do not
// answer.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t, pskConfig, nil).start(2)
		hears := g.laptop("192.0.2.10", "alice@example.test", "open sesame")
		hears.connect()
		deaf := g.laptop("192.0.2.11", "bob@example.test", "open sesame")
		deaf.connect()
		deaf.mu.Lock()
		deaf.deaf = true
		deaf.mu.Unlock()
		begin := time.Now()
		g.stop()
		if took := time.Since(begin); took > closeTimeout {
			t.Errorf("the end took %v", took)
		}
		synctest.Wait()
		if why := hears.why(); why.Reason != reason.PeerDeleted {
			t.Errorf("the laptop was told %q", why.Reason)
		}
		if !strings.Contains(g.log.String(), "reason=shutdown") {
			t.Errorf("log: %s", g.log)
		}
		hears.crash()
		deaf.crash()
	})
}

func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t, pskConfig, nil)
		g.edit("[[psk]]\nid = \"*\"\n", "[[psk]]\nid = \"bob@example.test\"\nsecret = \"open sesame\"\n[[psk]]\nid = \"carol@example.test\"\nsecret = \"open sesame\"\n[[psk]]\nid = \"*\"\n")
		g.start(3)
		reload := func() ([]string, error) { return g.Reload(t.Context()) }
		var laptops []*laptop
		for i, id := range []string{"alice@example.test", "bob@example.test", "carol@example.test", "dave.example.test"} {
			l := g.laptop(seat(i), id, "open sesame")
			l.connect()
			laptops = append(laptops, l)
		}
		before := g.addresses()

		// Broken: nothing changes.
		good := g.settings.Load()
		g.edit("pool4 = ", "poll4 = ")
		if _, err := reload(); reason.Of(err) != reason.ConfigInvalid || !strings.Contains(err.Error(), `unknown key "poll4"`) {
			t.Errorf("a broken configuration: %v", err)
		}
		if g.settings.Load() != good || g.addresses() != before || !strings.Contains(g.log.String(), "the old one stays in force") {
			t.Error("a broken configuration changed something")
		}
		g.edit("poll4 = ", "pool4 = ")

		// The network cannot be set up: back to the old.
		g.edit("10.30.0.0/29", "10.40.0.0/24")
		g.host.fail = errors.New("no nftables")
		if _, err := reload(); err == nil || !strings.Contains(err.Error(), "no nftables") {
			t.Errorf("a failing network: %v", err)
		}
		if g.settings.Load() != good || g.host.last().Pools[0].String() != "10.30.0.0/29" {
			t.Error("the old network is not in force")
		}

		// Another pool: sessions go on with what they have, and stay routed.
		later, err := reload()
		if err != nil || len(later) != 0 {
			t.Errorf("reload: %v, %v", later, err)
		}
		if g.addresses() != before {
			t.Errorf("sessions changed: %s", g.addresses())
		}
		pools := g.host.last().Pools
		if len(pools) != 2+4 || pools[0].String() != "10.40.0.0/24" || pools[2].Bits() != 32 {
			t.Errorf("routed: %v", pools)
		}
		l := g.laptop("192.0.2.20", "erin@example.test", "open sesame")
		if got := text(l.connect()); got != "[10.40.0.1 fd00:30::5]" {
			t.Errorf("a new session has %s", got)
		}

		// Who may not connect any more goes, the others stay: bob's key is another,
		// carol's falls back to the default, dave is not admitted.
		g.edit("id = \"bob@example.test\"\nsecret = \"open sesame\"", "id = \"bob@example.test\"\nsecret = \"another\"")
		g.edit("[[psk]]\nid = \"carol@example.test\"\nsecret = \"open sesame\"\n", "")
		g.edit(`, "*.example.test"`, "")
		g.edit("[timers]\n", "[log]\nlevel = \"warn\"\n[listen]\nport = 501\n[timers]\n")
		if later, err = reload(); err != nil || strings.Join(later, " ") != "listen.port" {
			t.Errorf("reload: %v, %v", later, err)
		}
		time.Sleep(5 * time.Second)
		if got := g.addresses(); got != "alice@example.test[10.30.0.1 fd00:30::1] carol@example.test[10.30.0.3 fd00:30::3] erin@example.test[10.40.0.1 fd00:30::5]" {
			t.Errorf("sessions: %s", got)
		}
		if g.logLevel.Level().String() != "WARN" {
			t.Errorf("log level %s", g.logLevel.Level())
		}
		// New sessions meet the new policy.
		if laptops[1].try() {
			t.Error("bob came in with the old key")
		}
		for _, l := range append(laptops, l) {
			l.crash()
		}
		g.stop()
	})
}

// A pool that is changed, and changed back: what clients have is still theirs, and nobody
// else's; nor the gateway's.
func TestReloadGivesNoAddressAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t, pskConfig, nil).start(2)
		reload := func() error { _, err := g.Reload(t.Context()); return err }
		alice := g.laptop("192.0.2.10", "alice@example.test", "open sesame")
		if got := text(alice.connect()); got != "[10.30.0.1 fd00:30::1]" {
			t.Fatalf("alice has %s", got)
		}
		for _, pool := range []string{"10.40.0.0/24", "10.30.0.0/29"} {
			g.edit(`pool4 = "`+g.settings.Load().Pools()[0].String(), `pool4 = "`+pool)
			if err := reload(); err != nil {
				t.Fatal(err)
			}
		}
		bob := g.laptop("192.0.2.11", "bob@example.test", "open sesame")
		if got := text(bob.connect()); got != "[10.30.0.2 fd00:30::2]" {
			t.Errorf("bob has %s", got)
		}
		before := g.settings.Load()
		g.edit("[network]\n", "[network]\ngateway = [\"10.30.0.1\", \"fd00:30::7\"]\n")
		if err := reload(); err == nil || !strings.Contains(err.Error(), "10.30.0.1 is the address of a connected client") {
			t.Errorf("a client's address for the gateway: %v", err)
		}
		if g.settings.Load() != before {
			t.Error("the old configuration is not in force")
		}
		alice.crash()
		bob.crash()
		g.stop()
	})
}

// 20000 requests from spoofed addresses: half-open sessions stay bounded, and a
// legitimate client connects at once, without a retransmission.
func TestFloodOfSpoofedRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t, pskConfig, nil).start(2)
		// A request as our own engine makes it, with other SPIs and addresses.
		tap := g.laptop("192.0.2.9", "tap@example.test", "open sesame")
		tap.connect()
		request := initRequest(t)
		for i := range 20_000 {
			src := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
			m := append([]byte(nil), request...)
			m[0], m[1], m[2] = byte(i>>16)|1, byte(i>>8), byte(i)
			g.group.HandleIKE(locator.Pair{Local: netip.AddrPortFrom(gatewayAddress, 500), Remote: netip.AddrPortFrom(src, 500)}, m)
			if i%500 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		half, up, err := g.group.Counts(t.Context())
		if err != nil || half > 64 || up != 1 {
			t.Errorf("%d half-open, %d established, %v", half, up, err)
		}
		begin := time.Now()
		l := g.laptop("192.0.2.10", "alice@example.test", "open sesame")
		l.connect()
		if took := time.Since(begin); took > 0 {
			t.Errorf("connecting took %v: something was dropped", took)
		}
		time.Sleep(time.Minute)
		if half, _, _ = g.group.Counts(t.Context()); half != 0 {
			t.Errorf("%d half-open after a minute", half)
		}
		if n := strings.Count(g.log.String(), "level=WARN"); n > 50 {
			t.Errorf("%d warnings in the log", n)
		}
		tap.crash()
		l.crash()
		g.stop()
	})
}

// initRequest is an IKE_SA_INIT request of our own engine.
func initRequest(t *testing.T) []byte {
	g := &gateway{t: t}
	caught := make(chan []byte, 1)
	l := g.catcher(caught)
	defer l.crash()
	pair := locator.Pair{Local: netip.MustParseAddrPort("192.0.2.1:500"), Remote: netip.AddrPortFrom(gatewayAddress, 500)}
	if err := l.Call(context.Background(), l.initiate(pair)); err != nil {
		t.Fatal(err)
	}
	m := <-caught
	if h, err := message.ParseHeader(m); err != nil || h.Exchange != message.IKESAInit {
		t.Fatalf("caught %v, %v", h, err)
	}
	return m
}

func TestMalformedDatagramsAreCountedAndBarelyLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t, pskConfig, nil).start(1)
		pair := locator.Pair{Local: netip.AddrPortFrom(gatewayAddress, 500), Remote: netip.MustParseAddrPort("198.51.100.1:500")}
		for i := range 100_000 {
			g.group.HandleIKE(pair, []byte{byte(i), 1, 2, 3})
		}
		st, err := g.Status(t.Context())
		if err != nil || st.Dropped.Malformed != 100_000 {
			t.Errorf("%+v, %v", st.Dropped, err)
		}
		if n := strings.Count(g.log.String(), "\n"); n == 0 || n > 10 {
			t.Errorf("%d lines in the log", n)
		}
		// Nor do messages for unknown SAs take the place of an error that matters.
		g.lastError.Store(&LastError{Code: reason.AuthFailedPSK})
		m := initRequest(t)
		m[18] = byte(message.Informational)
		g.group.HandleIKE(pair, m)
		synctest.Wait()
		if code := g.lastError.Load().Code; code != reason.AuthFailedPSK {
			t.Errorf("the last error is %s now", code)
		}
		g.stop()
	})
}

func TestSessionJSON(t *testing.T) {
	data, err := json.Marshal(newSession(zeroInfo, nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"id", "identity", "state", "spi_i", "spi_r", "local", "remote", "inner_addresses", "children", "algorithms", "nat", "traffic", "started", "extensions"} {
		if !strings.Contains(string(data), `"`+key+`":`) {
			t.Errorf("%s is missing: %s", key, data)
		}
	}
	if strings.Contains(string(data), "null") {
		t.Errorf("null in %s", data)
	}
}

// Every user can have a key of its own: the gateway proves itself with the one of
// whoever connects.
func TestEachUserHasAKeyOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t, pskConfig, nil)
		g.edit("[[psk]]\nid = \"*\"\nsecret = \"open sesame\"\n",
			"[[psk]]\nid = \"alice@example.test\"\nsecret = \"one\"\n[[psk]]\nid = \"bob@example.test\"\nsecret = \"two\"\n")
		g.start(2)
		for i, tt := range []struct {
			id, secret string
			ok         bool
		}{
			{"alice@example.test", "one", true}, {"bob@example.test", "two", true},
			{"alice@example.test", "two", false}, {"carol@example.test", "one", false},
		} {
			l := g.laptop(seat(i), tt.id, tt.secret)
			if l.try() != tt.ok {
				t.Errorf("%s with %s: connected is %v", tt.id, tt.secret, !tt.ok)
			}
			l.crash()
		}
		g.stop()
	})
}
