package esp

import (
	"encoding/binary"
	"math"
	"sync"
	"sync/atomic"
	"testing"
)

// modelWindow is RFC 4303 §3.4.3 in the plainest form.
type modelWindow struct {
	size uint64
	top  uint64
	seen map[uint64]bool
}

func (m *modelWindow) accept(seq uint64) (newest, ok bool) {
	if seq == 0 || m.seen[seq] || m.top >= m.size && seq <= m.top-m.size {
		return false, false
	}
	m.seen[seq] = true
	if seq > m.top {
		m.top, newest = seq, true
	}
	return newest, true
}

func TestReplayWindow(t *testing.T) {
	for _, size := range []int{32, 33, 63, 64, 65, 100, 2048} {
		w, err := NewReplayWindow(size)
		if err != nil {
			t.Fatal(err)
		}
		n := uint64(size)
		for _, v := range []struct {
			seq        uint64
			newest, ok bool
		}{
			{0, false, false},
			{1, true, true},
			{1, false, false},
			{3, true, true},
			{2, false, true},
			{2, false, false},
			{n + 2, true, true},
			{3, false, false}, // still in the window, seen
			{4, false, true},
			{2, false, false}, // left of it
			{n + 3, true, true},
			{3, false, false}, // now left of it
			{1 << 40, true, true},
			{1<<40 - n, false, false},
			{1<<40 - n + 1, false, true},
			{math.MaxUint64, true, true},
			{math.MaxUint64 - n + 1, false, true},
			{math.MaxUint64 - n, false, false},
			{math.MaxUint64, false, false},
		} {
			if w.Check(v.seq) != v.ok {
				t.Fatalf("size %d: Check(%d) = %v", size, v.seq, !v.ok)
			}
			if newest, ok := w.Accept(v.seq); newest != v.newest || ok != v.ok {
				t.Fatalf("size %d: Accept(%d) = %v %v", size, v.seq, newest, ok)
			}
		}
	}
}

func TestReplayWindowSizes(t *testing.T) {
	for _, size := range []int{-1, 1, 31, maxReplayWindow + 1} {
		if _, err := NewReplayWindow(size); err == nil {
			t.Errorf("window of %d packets was made", size)
		}
	}
	w, err := NewReplayWindow(0)
	if err != nil || w.size != DefaultReplayWindow {
		t.Fatalf("default window: %v, %v", w, err)
	}
}

func TestReplayWindowAcceptsOnceFromManyGoroutines(t *testing.T) {
	const numbers, goroutines = 20000, 4
	w, err := NewReplayWindow(1 << 16)
	if err != nil {
		t.Fatal(err)
	}
	accepted := make([]atomic.Int32, numbers+1)
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for seq := uint64(1); seq <= numbers; seq++ {
				if w.Check(seq) {
					if _, ok := w.Accept(seq); ok {
						accepted[seq].Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	for seq := 1; seq <= numbers; seq++ {
		if n := accepted[seq].Load(); n != 1 {
			t.Fatalf("sequence number %d was accepted %d times", seq, n)
		}
	}
}

func TestInferSequenceNumber(t *testing.T) {
	const w = 2048
	for _, v := range []struct {
		top  uint64
		low  uint32
		want uint64
		ok   bool
	}{
		{0, 1, 1, true},
		{0, 5000, 5000, true},
		{0, math.MaxUint32, 0, false}, // would be of the subspace before the first
		{w - 2, 0, 0, true},           // case B
		{w - 1, 0, 0, true},           // case A
		{w, 0, 1 << 32, true},         // left of the window: next subspace
		{w, 1, 1, true},
		{1<<32 - 1, 5, 1<<32 + 5, true},
		{1<<32 + 5, math.MaxUint32, 1<<32 - 1, true},
		{1<<32 + 5, math.MaxUint32 - w, 1<<33 - 1 - w, true}, // not in the window: ahead
		{math.MaxUint64, 5, 0, false},
		{math.MaxUint64, math.MaxUint32, math.MaxUint64, true},
	} {
		win, err := NewReplayWindow(w)
		if err != nil {
			t.Fatal(err)
		}
		win.top.Store(v.top)
		if got, ok := win.Infer(v.low); ok != v.ok || ok && got != v.want {
			t.Errorf("top %#x, low %#x: %#x %v, want %#x %v", v.top, v.low, got, ok, v.want, v.ok)
		}
	}
}

// FuzzReplay compares the ring with the model. Each 3 octets of input are a step:
// how to choose the next sequence number, and by how much.
func FuzzReplay(f *testing.F) {
	f.Add(uint16(32), []byte{0, 0, 1, 1, 0, 5, 2, 0, 3, 3, 1, 1})
	f.Add(uint16(2048), []byte{0, 255, 255, 1, 8, 0, 1, 7, 255, 2, 0, 64})
	f.Add(uint16(100), []byte{3, 0, 1, 3, 0, 1, 1, 0, 100, 1, 0, 99})
	f.Fuzz(func(t *testing.T, size uint16, steps []byte) {
		if size < minReplayWindow || len(steps) > 3000 {
			return
		}
		w, err := NewReplayWindow(int(size))
		if err != nil {
			t.Fatal(err)
		}
		model := &modelWindow{size: uint64(size), seen: map[uint64]bool{}}
		for ; len(steps) >= 3; steps = steps[3:] {
			delta := uint64(binary.BigEndian.Uint16(steps[1:]))
			seq := delta
			switch steps[0] % 4 {
			case 0:
				seq = model.top + delta
			case 1:
				seq = model.top - delta
			case 2:
				seq = model.top + delta<<24
			}
			checked := w.Check(seq)
			newest, ok := w.Accept(seq)
			wantNewest, want := model.accept(seq)
			if ok != want || newest != wantNewest || checked != want || w.Top() != model.top {
				t.Fatalf("seq %d at top %d: got %v %v %v, want %v %v", seq, model.top, checked, newest, ok, wantNewest, want)
			}
			// With low bits alone the same number must be found as long as it is in the
			// window or less than a window's rest of a subspace ahead.
			if got, known := w.Infer(uint32(seq)); ok && (!known || got != seq) && seq+uint64(size) > w.Top() {
				t.Fatalf("seq %#x inferred as %#x at top %#x", seq, got, w.Top())
			}
		}
	})
}
