package simnet

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"strings"
	"time"
)

// Stats count packets by what became of them.
type Stats struct {
	Sent, Delivered, Duplicated, Corrupted uint64
	Dropped                                [causes]uint64 // by Cause
}

// Cause is why a packet was dropped.
type Cause int

// Causes of loss.
const (
	Lost          Cause = iota // Conditions.Loss
	QueueFull                  // Conditions.Queue
	TooBig                     // Conditions.MTU
	Fragmented                 // Conditions.DropFragments
	Blocked                    // Block
	Filtered                   // SetFilter
	LinkDown                   // at either end
	NoSuchAddress              // nobody has the destination
	NATRefused                 // no mapping, or its filter said no
	causes
)

var causeNames = [causes]string{"lost", "queue full", "too big", "fragment dropped", "blocked",
	"filtered", "link down", "no such address", "refused by NAT"}

// String returns the name used in traces.
func (c Cause) String() string {
	if c < 0 || c >= causes {
		return fmt.Sprintf("Cause(%d)", int(c))
	}
	return causeNames[c]
}

// TotalDropped returns the sum over all causes.
func (s Stats) TotalDropped() uint64 {
	var sum uint64
	for _, n := range s.Dropped {
		sum += n
	}
	return sum
}

// Failure is the error of a run: what was wrong, and all that is needed to see
// it again.
type Failure struct {
	Seed  uint64
	Step  uint64
	After time.Duration // since the start of the clock
	Err   error
	Trace string
}

// Error tells the seed first; with it the run repeats.
func (f *Failure) Error() string {
	return fmt.Sprintf("seed %#x, step %d, after %s: %v\nlast events:\n%s", f.Seed, f.Step, f.After, f.Err, f.Trace)
}

// Unwrap returns the error of the hook.
func (f *Failure) Unwrap() error { return f.Err }

// record is one event of the trace.
type record struct {
	step   uint64
	at     time.Time
	what   string
	text   string // for events that are no packets
	packet uint64
	where  string
	header Packet // without data
	length int
	sum    uint64
}

// trace remembers the last events, and a digest of all.
type trace struct {
	ring   []record
	count  int
	digest uint64
}

func newTrace(n int) trace { return trace{ring: make([]record, n), digest: 14695981039346656037} }

func (t *trace) add(r record) {
	t.ring[t.count%len(t.ring)] = r
	t.count++
	h := fnv.New64a()
	var b []byte
	for _, v := range []uint64{t.digest, r.step, uint64(r.at.UnixNano()), r.packet, uint64(r.length), r.sum} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	for _, s := range []string{r.what, r.text, r.where} {
		b = append(append(b, s...), 0)
	}
	for _, a := range []interface{ AppendTo([]byte) []byte }{r.header.Src, r.header.Dst} {
		b = append(a.AppendTo(b), 0)
	}
	h.Write(b)
	t.digest = h.Sum64()
}

// Digest is a checksum of everything that happened. Two runs of one seed have
// the same.
func (n *Network) Digest() uint64 { return n.trace.digest }

// Note puts a remark of the test into the trace.
func (n *Network) Note(format string, args ...any) {
	n.trace.add(record{step: n.steps, at: n.now, what: "note", text: fmt.Sprintf(format, args...)})
}

// Trace returns the last events, one to a line, oldest first.
func (n *Network) Trace() string {
	var b strings.Builder
	first := max(0, n.trace.count-len(n.trace.ring))
	for i := first; i < n.trace.count; i++ {
		r := n.trace.ring[i%len(n.trace.ring)]
		fmt.Fprintf(&b, "%6d %12s %-16s", r.step, r.at.Sub(n.start), r.what)
		if r.packet != 0 {
			fmt.Fprintf(&b, " #%d %s > %s, %d octets (%08x) %s", r.packet, r.header.Src, r.header.Dst,
				r.length, uint32(r.sum), r.where)
		}
		fmt.Fprintf(&b, " %s\n", r.text)
	}
	return b.String()
}

func (n *Network) tracePacket(what, where string, p *packet) {
	h := fnv.New64a()
	h.Write(p.Data)
	n.trace.add(record{
		step: n.steps, at: n.now, what: what, where: where, packet: p.ID,
		header: Packet{Src: p.Src, Dst: p.Dst}, length: len(p.Data), sum: h.Sum64(),
	})
}

func (n *Network) drop(p *packet, why Cause, where string) {
	n.stats.Dropped[why]++
	n.tracePacket(why.String(), where, p)
}

// TB is the part of testing.TB that Report needs.
type TB interface {
	Helper()
	Failed() bool
	Cleanup(func())
	Logf(format string, args ...any)
}

// Report prints the seed and the last events when the test ends as failed, for
// whatever reason.
func (n *Network) Report(t TB) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %#x, step %d, after %s; last events:\n%s", n.seed, n.steps, n.now.Sub(n.start), n.Trace())
		}
	})
}
