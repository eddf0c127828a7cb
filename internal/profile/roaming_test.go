package profile

import (
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

// TestRoamingPolicy has the keys arrive where decisions are made.
func TestRoamingPolicy(t *testing.T) {
	d := DefaultRoaming()
	if got, want := d.Policy(), locator.DefaultPolicy(); got.SuspectAfter != want.SuspectAfter || got.Patience != want.Patience ||
		got.ProbeInterval != want.ProbeInterval || got.Keepalive != want.Keepalive || got.MaxStandby != want.MaxStandby {
		t.Errorf("the default is %+v, want %+v", got, want)
	}
	p, err := Parse("x.toml", []byte(minimalPSK+`[roaming]
path_failure = "300ms"
interfaces = ["eth*"]
order = ["metered", "interface"]
standby = "cold"
keepalive = "10s"
return_routability = "never"
`))
	if err != nil {
		t.Fatal(err)
	}
	got := p.Roaming.Policy()
	if got.SuspectAfter+got.Patience != 300*time.Millisecond || got.ProbeInterval >= got.Patience {
		t.Errorf("300ms became suspicion after %v, patience %v, probes each %v", got.SuspectAfter, got.Patience, got.ProbeInterval)
	}
	if got.Standby != locator.Cold || got.Check != locator.CheckNever || got.Keepalive != 10*time.Second ||
		got.Order[0] != locator.ByMetered || got.Interfaces[0] != "eth*" {
		t.Errorf("policy %+v", got)
	}
	for _, failure := range []time.Duration{300 * time.Millisecond, time.Second, 30 * time.Second} {
		p := locator.DefaultPolicy().Detecting(failure)
		if err := p.Validate(); err != nil || p.Detection() != failure {
			t.Errorf("%v: detection %v, %v", failure, p.Detection(), err)
		}
	}
}
