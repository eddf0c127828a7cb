package server

import (
	"net/netip"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// TestMoves remembers where a client was, and no more than a few places.
func TestMoves(t *testing.T) {
	table := newTable()
	table.add(&session{id: 7})
	at := func(port uint16) locator.Pair {
		return locator.Pair{Local: netip.MustParseAddrPort("203.0.113.1:4500"), Remote: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.10"), port)}
	}
	now := time.Now()
	for i := range uint16(10) {
		table.moved(7, newMove(now, ike.PathChanged{Session: 7, From: at(i + 1), To: at(i + 2), Cause: "peer-moved", Gap: 1500 * time.Microsecond}))
	}
	table.moved(8, Move{}) // gone meanwhile
	count, last := table.movesOf(7)
	if count != 10 || len(last) != maxMoves {
		t.Fatalf("%d moves, %d remembered", count, len(last))
	}
	if m := last[maxMoves-1]; m.From != at(10).Remote || m.To != at(11).Remote || m.TookMS != 1.5 {
		t.Errorf("the last move is %+v", m)
	}
	if m := last[0]; m.From != at(7).Remote {
		t.Errorf("the oldest remembered move is %+v", m)
	}
}
