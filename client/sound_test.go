package client

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// TestForgotten: what becomes of a session in which the gateway is silent.
func TestForgotten(t *testing.T) {
	for _, tt := range []struct {
		what   string
		sounds reason.Code
		crash  bool // it would tell of a crash
		heard  bool // in the session, soon after the answer
		esp    bool // packets still arrive
		asked  int  // soundings in three minutes
		anew   bool
	}{
		{what: "it answers elsewhere", sounds: reason.PeerAnswered, asked: 1, anew: true},
		{what: "it answers nowhere", sounds: reason.NoAnswer, asked: 3},
		{what: "it would tell", sounds: reason.PeerAnswered, crash: true},
		{what: "it is late", sounds: reason.PeerAnswered, heard: true, asked: 1},
		{what: "only IKE is held up", sounds: reason.PeerAnswered, esp: true},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.set(gateway, accepts("0.0.0.0/0"))
				c := w.connect(t, "", 0)
				after(time.Minute)
				w.happened()
				s := w.stack()
				id := c.st.session
				s.mu.Lock()
				s.sounds = tt.sounds
				if tt.esp {
					s.stats = esp.Stats{LastIn: time.Now().Add(time.Hour)}
				}
				s.mu.Unlock()
				s.change(id, func(i *ike.SessionInfo) { i.AwaySince, i.TellsCrash = time.Now(), tt.crash })
				if tt.heard {
					after(2 * upkeep)
					s.change(id, func(i *ike.SessionInfo) { i.AwaySince = time.Time{} })
				}
				after(3*time.Minute - upkeep)
				got := w.happened()
				if n := strings.Count(got, "sound"); n != tt.asked {
					t.Errorf("asked %d times: %s", n, got)
				}
				if anew := strings.Contains(got, "abort "+string(reason.PeerDead)+", "); anew != tt.anew {
					t.Errorf("given up: %v; %s", anew, got)
				}
				if connected := strings.Contains(got, "initiate"); connected != tt.anew {
					t.Errorf("connected anew: %v; %s", connected, got)
				}
				c.stop()
			})
		})
	}
}
