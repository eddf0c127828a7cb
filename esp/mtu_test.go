package esp

import (
	"fmt"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/suite"
)

// TestInnerMTU checks some values worked out by hand, and that for every path the
// packet of that size fits while one octet more does not.
func TestInnerMTU(t *testing.T) {
	gcm := suite.Encr{ID: suite.EncrAESGCM16, KeyBits: 128}
	cbc := suite.Encr{ID: suite.EncrAESCBC, KeyBits: 256}
	for _, v := range []struct {
		path    int
		v6, udp bool
		encr    suite.Encr
		integ   suite.IntegID
		want    int
	}{
		{1500, false, true, gcm, suite.IntegNone, 1438}, // 1500-20-8-8-8-16 = 1440, trailer 2
		{1500, true, true, gcm, suite.IntegNone, 1418},
		{1500, false, false, gcm, suite.IntegNone, 1446},
		{1500, false, true, cbc, suite.IntegHMACSHA256, 1422}, // 1500-28-8-16-16 = 1432, to 16: 1424
		{1500, true, true, cbc, suite.IntegHMACSHA512, 1390},
		{1280, true, true, gcm, suite.IntegNone, 1198},
		{60, true, true, gcm, suite.IntegNone, 0},
	} {
		got, err := InnerMTU(v.path, v.v6, v.udp, v.encr, v.integ)
		if err != nil || got != v.want {
			t.Errorf("%+v: %d, %v", v, got, err)
		}
	}
	for _, a := range testAlgorithms {
		for path := 100; path < 1600; path++ {
			layout, err := LayoutOf(a.encr, a.integ)
			if err != nil {
				t.Fatal(err)
			}
			n := layout.InnerMTU(path, false, true)
			if n > 0 && 28+layout.SealedLen(n) > path || 28+layout.SealedLen(n+1) <= path {
				t.Fatalf("%s: path %d: %d is not the largest", a.name, path, n)
			}
		}
	}
	if _, err := InnerMTU(1500, false, true, cbc, suite.IntegNone); err == nil {
		t.Error("CBC without integrity has an MTU")
	}
}

var benchSizes = []int{64, 512, 1400, 8900}

func BenchmarkSeal(b *testing.B) {
	for _, a := range testAlgorithms {
		for _, size := range benchSizes {
			b.Run(fmt.Sprintf("%s/%d", a.name, size), func(b *testing.B) {
				s, _ := a.pair(b, true)
				scratch, buf := new(Scratch), make([]byte, MaxHeadroom+size+MaxTailroom)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					seq, _, _ := s.Reserve(1, size)
					if _, err := s.Seal(scratch, buf, MaxHeadroom, size, NextHeaderIPv4, seq); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkOpen opens a packet into other memory, as the data path does. The window
// is turned back before each packet, so that the same one is always new.
func BenchmarkOpen(b *testing.B) {
	for _, a := range testAlgorithms {
		for _, size := range benchSizes {
			b.Run(fmt.Sprintf("%s/%d", a.name, size), func(b *testing.B) {
				s, o := a.pair(b, true)
				pkt := sealOne(b, s, make([]byte, size), NextHeaderIPv4)
				scratch, dst := new(Scratch), make([]byte, 0, len(pkt))
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					o.window.top.Store(0)
					o.window.words[0].Store(0)
					if _, err := o.Open(scratch, dst, pkt); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkSPDLookup(b *testing.B) {
	for _, hosts := range []int{1, 100, 10000} {
		b.Run(fmt.Sprint(hosts), func(b *testing.B) {
			var d SPD[*int]
			addr := prefixSel("10.0.0.0/32").Start
			var pkts []Inner
			for i := range hosts {
				remote := []Selector{{Start: addr, End: addr, EndPort: 65535}}
				sel, err := NewSelectors([]Selector{prefixSel("0.0.0.0/0")}, remote)
				if err != nil {
					b.Fatal(err)
				}
				d.Insert(new(int), HostID(i), sel, remote)
				pkts = append(pkts, *parsed(b, v4Packet(17, "192.0.2.1", addr.String(), 0, udp53...)))
				addr = addr.Next()
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, ok := d.Lookup(&pkts[i]); !ok {
					b.Fatal("not found")
				}
				if i++; i == hosts {
					i = 0
				}
			}
		})
	}
}
