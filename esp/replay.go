package esp

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
)

const (
	wordBits = 64
	// minReplayWindow is the smallest window RFC 4303 §3.4.3 allows; the largest
	// bounds the memory of an SA to 128 KiB.
	minReplayWindow = 32
	maxReplayWindow = 1 << 20
)

// ReplayWindow is the anti-replay window of RFC 4303 §3.4.3, kept as a ring of
// 64-bit words in the manner of RFC 6479: moving on clears whole words, and no bit
// is ever shifted.
//
// Check is lock-free, so that hostile packets are turned away cheaply; Accept
// decides under a lock. A stale view in Check cannot admit a packet twice, because
// Accept looks again, nor refuse a packet that is still in the window.
type ReplayWindow struct {
	size uint64
	mask uint64 // over words

	mu    sync.Mutex // serialises Accept
	top   atomic.Uint64
	words []atomic.Uint64
}

// NewReplayWindow returns a window for so many packets; zero means
// DefaultReplayWindow.
func NewReplayWindow(size int) (*ReplayWindow, error) {
	w := new(ReplayWindow)
	if err := w.init(size); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *ReplayWindow) init(size int) error {
	if size == 0 {
		size = DefaultReplayWindow
	}
	if size < minReplayWindow || size > maxReplayWindow {
		return fmt.Errorf("replay window of %d packets: choose %d to %d", size, minReplayWindow, maxReplayWindow)
	}
	// One word more than the window fills, since the window seldom starts at a word.
	words := 1 << bits.Len(uint((size+wordBits-1)/wordBits))
	w.size, w.mask, w.words = uint64(size), uint64(words-1), make([]atomic.Uint64, words)
	return nil
}

// Top is the highest sequence number accepted, zero when there was none.
func (w *ReplayWindow) Top() uint64 { return w.top.Load() }

// Check reports whether a sequence number is neither too old nor seen before.
// Numbers start with 1 (RFC 4303 §2.2), so zero never passes.
func (w *ReplayWindow) Check(seq uint64) bool {
	top := w.top.Load()
	if seq > top {
		return true
	}
	if seq == 0 || top-seq >= w.size {
		return false
	}
	return w.words[seq/wordBits&w.mask].Load()&(1<<(seq%wordBits)) == 0
}

// Accept marks an authenticated packet as seen and moves the window. It reports
// whether the packet is the newest so far, and false when it must be dropped
// after all.
func (w *ReplayWindow) Accept(seq uint64) (newest, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.Check(seq) {
		return false, false
	}
	if top := w.top.Load(); seq > top {
		w.advance(top, seq)
		newest = true
	}
	word := &w.words[seq/wordBits&w.mask]
	word.Store(word.Load() | 1<<(seq%wordBits))
	return newest, true
}

// advance clears the words that the window newly covers.
func (w *ReplayWindow) advance(top, seq uint64) {
	n := min(seq/wordBits-top/wordBits, uint64(len(w.words)))
	for i := range n {
		w.words[(seq/wordBits-i)&w.mask].Store(0)
	}
	w.top.Store(seq)
}

// Infer returns the 64-bit sequence number for the 32 bits of a packet, by RFC
// 4303 appendix A2.2; false when no such number exists yet or any more.
func (w *ReplayWindow) Infer(low uint32) (uint64, bool) {
	top := w.top.Load()
	topLow, high := uint32(top), top>>32
	bottom := topLow - uint32(w.size) + 1 // modulo 2^32, as in the appendix
	if uint64(topLow) >= w.size-1 {       // case A: the window lies within one subspace
		if low < bottom {
			high++
		}
		if high>>32 != 0 {
			return 0, false
		}
	} else if low >= bottom { // case B: the window reaches back into the subspace before
		if high == 0 {
			return 0, false
		}
		high--
	}
	return high<<32 | uint64(low), true
}
