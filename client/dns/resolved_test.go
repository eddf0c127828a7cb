package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/wayfarer-vpn/wayfarer/internal/bustest"
)

// service stands in for systemd-resolved. Its methods have the signatures of
// org.freedesktop.resolve1(5); a call with other types fails.
type service struct {
	mu    sync.Mutex
	calls []string
	old   bool // a version without SetLinkDefaultRoute
}

func (s *service) note(format string, args ...any) *dbus.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, fmt.Sprintf(format, args...))
	return nil
}

// told returns the calls so far, one per line.
func (s *service) told() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.calls, "\n")
}

func (s *service) SetLinkDNS(index int32, servers []struct {
	Family  int32
	Address []byte
}) *dbus.Error {
	return s.note("dns %d %v", index, servers)
}

func (s *service) SetLinkDomains(index int32, domains []struct {
	Domain string
	Only   bool
}) *dbus.Error {
	return s.note("domains %d %v", index, domains)
}

func (s *service) SetLinkDefaultRoute(index int32, on bool) *dbus.Error {
	s.mu.Lock()
	old := s.old
	s.mu.Unlock()
	if old {
		return dbus.NewError("org.freedesktop.DBus.Error.UnknownMethod", nil)
	}
	return s.note("default %d %v", index, on)
}

func (s *service) SetLinkLLMNR(index int32, mode string) *dbus.Error {
	return s.note("llmnr %d %s", index, mode)
}

func (s *service) SetLinkMulticastDNS(index int32, mode string) *dbus.Error {
	return s.note("mdns %d %s", index, mode)
}

func (s *service) RevertLink(index int32) *dbus.Error { return s.note("revert %d", index) }
func (s *service) FlushCaches() *dbus.Error           { return s.note("flush") }

func TestBus(t *testing.T) {
	address := bustest.Start(t, "systemd-resolved was")
	connect := func() (*dbus.Conn, error) { return dbus.Connect(address) }
	bus := &Bus{Connect: connect}
	ctx := context.Background()
	if bus.Available(ctx) {
		t.Error("a service that is not there is available")
	}
	server, err := connect()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	s := &service{}
	if err := server.Export(s, resolvedPath, resolvedName+".Manager"); err != nil {
		t.Fatal(err)
	}
	if _, err := server.RequestName(resolvedName, dbus.NameFlagDoNotQueue); err != nil {
		t.Fatal(err)
	}
	if !bus.Available(ctx) {
		t.Fatal("the service is not available")
	}
	settings := Settings{Interface: "lo", Servers: tunnel, Domains: []string{"corp.example"}}
	if err := bus.SetLink(ctx, settings); err != nil {
		t.Fatal(err)
	}
	if err := bus.RevertLink(ctx, "lo"); err != nil {
		t.Fatal(err)
	}
	if err := bus.RevertLink(ctx, "gone0"); err != nil {
		t.Errorf("an interface that is gone: %v", err)
	}
	want := strings.Join([]string{
		"domains 1 [{corp.example true}]",
		"dns 1 [{2 [10 20 0 2]} {10 [253 0 0 32 0 0 0 0 0 0 0 0 0 0 0 2]}]",
		"default 1 false", "llmnr 1 no", "mdns 1 no", "flush", "revert 1",
	}, "\n")
	if got := s.told(); got != want {
		t.Errorf("calls:\n%s\nwant\n%s", got, want)
	}
	s.mu.Lock()
	s.old = true
	s.mu.Unlock()
	if err := bus.SetLink(ctx, settings); err != nil {
		t.Errorf("an old version: %v", err)
	}
	if err := bus.SetLink(ctx, Settings{Interface: "gone0", Servers: tunnel}); err == nil {
		t.Error("an interface that is not there got servers")
	}
}

// TestLookup asks one server after the other, through the dial function.
func TestLookup(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]bool{}
	r := Lookup([]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}, func(_ context.Context, _, address string) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		asked[address] = true
		return nil, fmt.Errorf("no way to %s", address)
	})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := r.LookupNetIP(ctx, "ip", "vpn.example.test."); err == nil {
		t.Error("resolved without a server")
	}
	if !asked["192.0.2.1:53"] || !asked["[2001:db8::1]:53"] {
		t.Errorf("asked: %v", asked)
	}
	if _, err := Lookup(nil, nil).LookupNetIP(ctx, "ip", "vpn.example.test."); err == nil {
		t.Error("resolved without any server")
	}
}
