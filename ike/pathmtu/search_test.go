package pathmtu

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// path is a path whose MTU is known to the test, and the search of it.
type path struct {
	t      *testing.T
	s      *Search
	now    time.Time
	mtu    int
	loss   float64 // of a packet or its answer
	align  int     // packets are shorter than asked for by up to this
	rng    *rand.Rand
	idle   bool
	probes int // transmissions of all sizes
	rounds int
}

func newPath(t *testing.T, least, mtu int) *path {
	return &path{t: t, s: New(start, least, 1500), now: start, mtu: mtu, rng: rand.New(rand.NewPCG(1, uint64(mtu)))}
}

// round is one probe: it moves the clock to when it is due.
func (p *path) round() (done bool) {
	p.t.Helper()
	if due := p.s.Due(); due.After(p.now) {
		p.now = due
	}
	sizes := p.s.Begin(p.now, !p.idle)
	if len(sizes) == 0 {
		return true
	}
	p.rounds++
	for i, size := range sizes {
		if i > 0 && size > sizes[i-1] {
			p.t.Fatalf("sizes go up: %v", sizes)
		}
		if size < p.s.min || size > p.s.max {
			p.t.Fatalf("sizes %v are not between %d and %d", sizes, p.s.min, p.s.max)
		}
		p.probes++
		packet := size
		if p.align > 0 {
			packet -= (size + 5) % p.align
		}
		if packet <= p.mtu && p.rng.Float64() >= p.loss {
			p.s.Answered(p.now, size, packet)
			return false
		}
	}
	p.s.TooLarge(p.now)
	return false
}

// search goes on until there is nothing more to find.
func (p *path) search() {
	p.t.Helper()
	for range 40 {
		p.round()
		if p.s.Complete() {
			return
		}
	}
	p.t.Fatalf("MTU %d: no end: %+v", p.mtu, p.s)
}

func TestEveryMTUIsFound(t *testing.T) {
	for _, least := range []int{Min4, Min6} {
		most := 0
		for mtu := least; mtu <= 1500; mtu++ {
			p := newPath(t, least, mtu)
			p.search()
			if got := p.s.MTU(); got > mtu || got < mtu-granularity+1 {
				t.Errorf("MTU %d found as %d", mtu, got)
			}
			most = max(most, p.rounds)
		}
		if most > 14 {
			t.Errorf("least %d: up to %d rounds", least, most)
		}
	}
}

func TestCommonMTUsAreExact(t *testing.T) {
	for _, mtu := range common {
		if mtu > 1500 {
			continue
		}
		p := newPath(t, Min4, mtu)
		p.search()
		if p.s.MTU() != mtu {
			t.Errorf("MTU %d found as %d", mtu, p.s.MTU())
		}
	}
}

// What most paths cost: one packet, and three with PPPoE before the right size.
func TestOrdinaryPathsCostLittle(t *testing.T) {
	for mtu, want := range map[int]int{1500: 1, 1492: Tries + 1 + 1} {
		p := newPath(t, Min4, mtu)
		p.search()
		if p.probes != want || p.s.MTU() != mtu {
			t.Errorf("MTU %d: %d transmissions, want %d; found %d", mtu, p.probes, want, p.s.MTU())
		}
	}
}

// A cipher with blocks does not meet every size; only what was sent is proven.
func TestShorterPackets(t *testing.T) {
	for mtu := 1280; mtu <= 1500; mtu += 7 {
		p := newPath(t, Min6, mtu)
		p.align = 16
		p.search()
		if got := p.s.MTU(); got > mtu || got < mtu-granularity-16 {
			t.Errorf("MTU %d found as %d", mtu, got)
		}
	}
}

// With loss the result is never too large, and the way to the right one is open: the
// next raise finds what was missed.
func TestLoss(t *testing.T) {
	exact := 0
	const runs = 300
	for i := range runs {
		p := newPath(t, Min4, []int{1500, 1400, 1280}[i%3])
		p.rng, p.loss = rand.New(rand.NewPCG(uint64(i), 7)), 0.2
		p.search()
		if p.s.MTU() > p.mtu {
			t.Fatalf("MTU %d found as %d", p.mtu, p.s.MTU())
		}
		if p.s.MTU() == p.mtu {
			exact++
		}
		p.loss = 0
		for p.now.Before(start.Add(40 * RaiseEvery)) {
			p.round()
		}
		if p.s.MTU() != p.mtu {
			t.Fatalf("seed %d: MTU %d stays at %d", i, p.mtu, p.s.MTU())
		}
	}
	if exact < runs*8/10 {
		t.Errorf("with 20%% loss only %d of %d were right at once", exact, runs)
	}
}

func TestShrinkIsConfirmed(t *testing.T) {
	for _, mtu := range []int{1400, 1280, 1000} {
		p := newPath(t, Min4, 1500)
		p.search()
		p.mtu = mtu
		p.round() // the next confirmation
		if got := p.s.MTU(); got > mtu {
			t.Errorf("MTU %d taken as %d", mtu, got)
		}
		if waited := p.now.Sub(start); waited > ConfirmEvery {
			t.Errorf("noticed after %v", waited)
		}
		p.search()
		if p.s.MTU() > mtu || p.s.MTU() <= mtu-granularity {
			t.Errorf("MTU %d found as %d", mtu, p.s.MTU())
		}
	}
}

func TestSuspicion(t *testing.T) {
	p := newPath(t, Min4, 1500)
	p.search()
	p.now = p.now.Add(time.Second)
	p.mtu = 1400
	p.s.Suspect(p.now)
	if !p.s.Due().Equal(p.now) {
		t.Fatalf("probe due %v later", p.s.Due().Sub(p.now))
	}
	p.idle = true // a suspicion needs no proof of traffic: it is one
	p.round()
	if p.s.MTU() != 1400 {
		t.Errorf("found %d", p.s.MTU())
	}
}

// Traffic that goes one way only is unanswered for ever; it must not be a reason to
// probe for ever.
func TestUnfoundedSuspicionsSilence(t *testing.T) {
	p := newPath(t, Min4, 1500)
	p.search()
	p.idle = true
	before := p.probes
	for end := p.now.Add(10 * time.Minute); p.now.Before(end); p.now = p.now.Add(300 * time.Millisecond) {
		p.s.Suspect(p.now)
		if !p.s.Due().After(p.now) {
			p.round()
		}
	}
	if n := p.probes - before; n < 5 || n > 18 {
		t.Errorf("%d probes in ten minutes of suspicion", n)
	}
}

func TestIdlePathIsLeftAlone(t *testing.T) {
	p := newPath(t, Min4, 1400)
	p.search()
	p.idle = true
	before, looks := p.probes, 0
	for end := p.now.Add(time.Hour); p.now.Before(end); looks++ {
		p.round()
	}
	if p.probes != before || looks > 62 {
		t.Errorf("%d probes, %d looks in an idle hour", p.probes-before, looks)
	}
}

func TestRaise(t *testing.T) {
	p := newPath(t, Min4, 1280)
	p.search()
	p.mtu = 1480
	for p.now.Before(start.Add(RaiseEvery + time.Minute)) {
		p.round()
	}
	if p.s.MTU() != 1480 {
		t.Errorf("found %d", p.s.MTU())
	}
	// Where nothing has changed, looking for more costs little.
	before := p.probes
	for end := p.now.Add(RaiseEvery); p.now.Before(end); {
		p.round()
	}
	if n := p.probes - before - int(RaiseEvery/ConfirmEvery); n > 4*Tries {
		t.Errorf("%d transmissions to look for more", n)
	}
}

func TestVoidIsRepeated(t *testing.T) {
	s := New(start, Min4, 1500)
	first := fmt.Sprint(s.Begin(start, true))
	if !s.Due().IsZero() {
		t.Error("a second probe is due while one is under way")
	}
	s.Void(start)
	if again := fmt.Sprint(s.Begin(start.Add(retryVoid), true)); again != first || s.MTU() != 0 {
		t.Errorf("%s after %s, MTU %d", again, first, s.MTU())
	}
}

// Whatever is told in whatever order, the known size stays within what was answered,
// and there is always a next step.
func FuzzSearch(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0}, true)
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}, false)
	f.Fuzz(func(t *testing.T, script []byte, six bool) {
		least := Min4
		if six {
			least = Min6
		}
		s, now := New(start, least, 1500), start
		for _, b := range script {
			if b&0x80 != 0 {
				s.Suspect(now)
			}
			due := s.Due()
			if due.IsZero() {
				t.Fatal("nothing is ever due again")
			}
			if due.After(now) {
				now = due
			}
			sizes := s.Begin(now, b&0x40 == 0)
			if len(sizes) == 0 {
				if !s.Due().After(now) {
					t.Fatal("due for ever without a probe")
				}
				continue
			}
			switch i := int(b & 0x0f); {
			case i < len(sizes):
				s.Answered(now, sizes[i], sizes[i]-int(b>>4&3))
				if s.MTU() > max(sizes[0], least) && s.MTU() > 1500 {
					t.Fatalf("MTU %d of %v", s.MTU(), sizes)
				}
			case i < 14:
				s.TooLarge(now)
			default:
				s.Void(now)
			}
			if s.MTU() != 0 && (s.MTU() < least-3 || s.MTU() > 1500) {
				t.Fatalf("MTU %d", s.MTU())
			}
		}
	})
}
