package ike

import (
	"testing"
	"time"
)

func TestAwayTimeout(t *testing.T) {
	for _, tt := range []struct{ away, peer, want time.Duration }{
		{0, 0, DefaultAwayTimeout},
		{0, time.Minute, time.Minute}, // who wants to know early does not wait a day
		{time.Hour, time.Minute, time.Hour},
		{time.Hour, 0, time.Hour},
	} {
		if got := AwayTimeout(tt.away, tt.peer); got != tt.want {
			t.Errorf("away %v, peer %v: %v, want %v", tt.away, tt.peer, got, tt.want)
		}
	}
}

// TestAwayNeedsMobility: who cannot move is given up after PeerTimeout, whatever
// AwayTimeout says.
func TestAwayNeedsMobility(t *testing.T) {
	cp, sp := clientPolicy(), serverPolicy()
	cp.AwayTimeout, sp.AwayTimeout = time.Hour, time.Hour
	cp.LivenessDelay, sp.LivenessDelay = 10*time.Second, 10*time.Second
	l := connected(t, cp, sp)
	l.filter = func(datagram) bool { return false }
	l.advance(time.Minute)
	for _, i := range []SessionInfo{l.clientInfo(), l.serverInfo()} {
		if i.AwaySince.IsZero() {
			t.Errorf("session %d does not seem away", i.ID)
		}
	}
	l.advance(DefaultPeerTimeout)
	if len(l.client.closed) != 1 || len(l.server.closed) != 1 {
		t.Error("not given up")
	}
}
