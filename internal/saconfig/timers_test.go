package saconfig

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/config"
)

func TestTimersCheck(t *testing.T) {
	const ms = config.Duration(time.Millisecond)
	for name, tt := range map[string]struct {
		change func(*Timers)
		want   string // empty: good
	}{
		"defaults":          {func(*Timers) {}, ""},
		"zero":              {func(x *Timers) { *x = Timers{} }, ""},
		"negative jitter":   {func(x *Timers) { x.Jitter = -0.1 }, "jitter: -0.1 is not between 0 and 0.5"},
		"too much jitter":   {func(x *Timers) { x.Jitter = 0.6 }, "jitter: 0.6 is not between 0 and 0.5"},
		"no number":         {func(x *Timers) { x.Jitter = math.NaN() }, "jitter: NaN is not between 0 and 0.5"},
		"too many packets":  {func(x *Timers) { x.RekeyPackets = 1 << 63 }, "rekey_packets: 9223372036854775808 is too large"},
		"short IKE life":    {func(x *Timers) { x.RekeyIKE = 10 * ms }, "rekey_ike: 10ms is less than 1s; 0 means never"},
		"short Child life":  {func(x *Timers) { x.RekeyChild = ms }, "rekey_child: 1ms is less than 1s; 0 means never"},
		"negative silence":  {func(x *Timers) { x.DPDDelay = -1000 * ms }, "dpd_delay: -1s is less than 1s; 0 means never"},
		"short patience":    {func(x *Timers) { x.DPDTimeout = 500 * ms }, "dpd_timeout: 500ms is less than 1s; 0 means the default"},
		"short way":         {func(x *Timers) { x.AwayTimeout = 500 * ms }, "away_timeout: 500ms is less than 1s; 0 means the default"},
		"shortest possible": {func(x *Timers) { x.RekeyIKE, x.DPDTimeout = 1000*ms, 1000*ms }, ""},
	} {
		x := DefaultTimers()
		tt.change(&x)
		var got []string
		x.Check(func(key, format string, args ...any) { got = append(got, key+": "+fmt.Sprintf(format, args...)) })
		if text := strings.Join(got, "\n"); text != tt.want {
			t.Errorf("%s: got %q, want %q", name, text, tt.want)
		}
	}
}

// Both ends of a session get the same policy from the same words.
func TestTimersApply(t *testing.T) {
	x := Timers{
		RekeyIKE: config.Duration(time.Hour), RekeyChild: config.Duration(time.Minute), Jitter: 0.25,
		DPDDelay: config.Duration(5 * time.Second), DPDTimeout: config.Duration(7 * time.Second), RekeyBytes: 1000, RekeyPackets: 10,
	}
	var p ike.Policy
	x.Apply(&p)
	if p.RekeyIKE != time.Hour || p.RekeyChild != time.Minute || p.Jitter != 0.25 || p.LivenessDelay != 5*time.Second ||
		p.PeerTimeout != 7*time.Second || p.AwayTimeout != 7*time.Second || p.Lifetime != esp.RekeyAfter(1000, 10) {
		t.Errorf("%+v", p)
	}
	x.AwayTimeout = config.Duration(9 * time.Hour)
	if x.Apply(&p); p.AwayTimeout != 9*time.Hour {
		t.Errorf("away for %v", p.AwayTimeout)
	}
}

func TestSizes(t *testing.T) {
	for name, check := range map[string]func(int) error{"MTU": CheckMTU, "path MTU": CheckPathMTU} {
		for _, good := range []int{0, 576, 1280, 65535} {
			if err := check(good); err != nil {
				t.Errorf("%s %d: %v", name, good, err)
			}
		}
		for _, bad := range []int{-1, 1, 575, 65536} {
			if err := check(bad); err == nil || !slices.Contains(strings.Fields(err.Error()), fmt.Sprint(bad)) {
				t.Errorf("%s %d: %v", name, bad, err)
			}
		}
	}
	for n, good := range map[int]bool{-1: false, 0: true, 64: true, 1 << 20: true, 1<<20 + 1: false} {
		if err := CheckReplayWindow(n); (err == nil) != good {
			t.Errorf("window %d: %v", n, err)
		}
	}
}
