package datapath

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/esp/xfrm"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

func TestChoose(t *testing.T) {
	noESP := errors.New("this kernel has no IPsec")
	for _, c := range []struct {
		dscp  esp.DSCP
		mode  Mode
		probe error
		want  Choice
		fails bool
	}{
		{mode: Tun, probe: errors.New("must not be asked"), want: Choice{Kind: Tun}},
		{mode: Auto, want: Choice{Kind: XFRM}},
		{mode: Auto, probe: noESP, want: Choice{Kind: Tun, Code: reason.KernelPathUnavailable}},
		{mode: Auto, probe: fmt.Errorf("%w", xfrm.ErrNoInterface), want: Choice{Kind: Tun, Code: reason.KernelPathUnavailable}},
		{mode: XFRM, want: Choice{Kind: XFRM}},
		{mode: XFRM, probe: xfrm.ErrNoInterface, want: Choice{Kind: XFRM, PolicyBased: true}},
		{mode: XFRM, probe: noESP, fails: true},
		{dscp: esp.CopyDSCP, mode: Auto, want: Choice{Kind: XFRM}},
		{dscp: 46, mode: Auto, probe: errFixedDSCP, want: Choice{Kind: Tun, Code: reason.KernelPathUnavailable}},
		{dscp: 46, mode: Tun, want: Choice{Kind: Tun}},
	} {
		asked := 0
		got, err := choose(Config{Mode: c.mode, DSCP: c.dscp}, func(_ xfrm.Owner, p []suite.ESPProposal) error {
			if asked++; c.mode == Auto && len(p) < 4 {
				t.Errorf("auto asks for %d proposals only", len(p))
			}
			return c.probe
		})
		if c.fails {
			if reason.Of(err) != reason.KernelPathUnavailable || !strings.Contains(err.Error(), noESP.Error()) || !strings.Contains(err.Error(), "datapath") {
				t.Errorf("%s, %v: error %v", c.mode, c.probe, err)
			}
			continue
		}
		why := got.Why
		got.Why = ""
		if err != nil || got != c.want || why == "" {
			t.Errorf("%s, %v: %+v because of %q, %v", c.mode, c.probe, got, why, err)
		}
		if c.want.Code != "" && !strings.Contains(why, c.probe.Error()) {
			t.Errorf("%s: the reason %q does not say what is missing", c.mode, why)
		}
		if c.mode == Tun && asked > 0 {
			t.Error("the kernel is asked though nobody wants it")
		}
	}
}

func TestParseMode(t *testing.T) {
	for _, s := range []string{"auto", "tun", "xfrm"} {
		if m, err := ParseMode(s); err != nil || string(m) != s {
			t.Errorf("%s: %v %v", s, m, err)
		}
	}
	if _, err := ParseMode("TUN"); err == nil {
		t.Error("TUN is taken")
	}
}

// TestOpen on this machine: auto opens some data path wherever a TUN device can be
// made.
func TestOpen(t *testing.T) {
	p, choice, err := Open(Config{Mode: Auto, Owner: xfrm.Laptop, Name: "wfdptest", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Skipf("no data path can be made here: %v", err)
	}
	defer p.Close()
	if choice.Kind == Auto || choice.Why == "" || choice.Kernel() != (choice.Kind == XFRM) {
		t.Errorf("choice %+v", choice)
	}
	if name, err := p.Name(); err != nil || name != "wfdptest" || p.MTU() == 0 {
		t.Errorf("%s %v, MTU %d", name, err, p.MTU())
	}
}
