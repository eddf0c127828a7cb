package client

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/profile"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// TestHandoverIsTold has one log line for each handover, and the last one in the
// status.
func TestHandoverIsTold(t *testing.T) {
	var log strings.Builder
	c := &connection{connectionConfig: connectionConfig{
		profile: &profile.Profile{Name: "alice"}, log: slog.New(slog.NewTextHandler(&log, nil)), changed: func() {},
	}}
	pair := func(local string) locator.Pair {
		return locator.Pair{Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort("203.0.113.1:4500")}
	}
	wifi, lte := pair("192.0.2.10:4500"), pair("198.51.100.20:4500")

	c.moving(ike.PathChanged{From: wifi, To: lte, Cause: "local-lost", Verified: true, Gap: time.Millisecond})
	if h := c.st.handover; h.Confirmed || h.To != lte.Local || h.Gateway != lte.Remote || log.Len() != 0 {
		t.Errorf("under way: %+v, log %q", h, log.String())
	}
	c.followed(ike.PathConfirmed{Pair: lte, Gap: 12500 * time.Microsecond})
	c.followed(ike.PathConfirmed{Pair: lte, Gap: time.Hour}) // is news no more
	if h := c.st.handover; !h.Confirmed || h.GapMS != 12.5 {
		t.Errorf("confirmed: %+v", h)
	}
	// Two moves, and only the second one gets an answer.
	c.moving(ike.PathChanged{From: lte, To: wifi, Cause: "traffic-unanswered"})
	c.moving(ike.PathChanged{From: wifi, To: lte, Cause: "local-lost"})
	c.followed(ike.PathConfirmed{Pair: lte, Gap: time.Second})
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	want := []string{
		`from="192.0.2.10:4500 > 203.0.113.1:4500" to="198.51.100.20:4500 > 203.0.113.1:4500" cause=local-lost gap_ms=12.5 verified=true confirmed=true`,
		`cause=traffic-unanswered gap_ms=0 verified=false confirmed=false`,
		`cause=local-lost gap_ms=1000 verified=false confirmed=true`,
	}
	if len(lines) != len(want) {
		t.Fatalf("%d lines:\n%s", len(lines), log.String())
	}
	for i, line := range lines {
		if !strings.Contains(line, want[i]) {
			t.Errorf("line %d is\n%s\nwant\n%s", i, line, want[i])
		}
	}
}

// TestMetered marks the interfaces that the user names.
func TestMetered(t *testing.T) {
	r := profile.DefaultRoaming()
	r.Metered = []string{"wwan*", "usb0"}
	u := newUplinks(r)
	for i, l := range u.mark([]locator.Local{{Name: "wlan0"}, {Name: "wwan1"}, {Name: "usb0"}, {Name: "usb1"}}) {
		if want := i == 1 || i == 2; l.Metered != want {
			t.Errorf("%s is metered: %v", l.Name, l.Metered)
		}
	}
}
