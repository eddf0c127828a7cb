package tun

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/esp/tun/vnet"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
	"github.com/wayfarer-vpn/wayfarer/locator"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// fakeDevice is a TUN device in memory: its queue hands out what the test puts in,
// write collects packets.
type fakeDevice struct {
	mtu   int
	queue *fakeQueue

	mu      sync.Mutex
	written [][]byte
	frames  int
	discard bool
	answer  [][]byte // frames that the kernel answers with to the next write

	once   sync.Once
	closed atomic.Bool
	events chan tun.Event
}

// fakeQueue is a queue of a fake device. Wait returns with frames, or for good when the
// device is closed.
type fakeQueue struct {
	*fakeDevice
	arrivals chan [][]byte
	failing  error
	failures atomic.Int32

	lock  sync.Mutex
	ready [][]byte // a nil frame stands for a failure
}

func newFakeQueue(f *fakeDevice) *fakeQueue {
	return &fakeQueue{fakeDevice: f, arrivals: make(chan [][]byte)}
}

func newFakeDevice() *fakeDevice {
	f := &fakeDevice{mtu: 1400, events: make(chan tun.Event, 4)}
	f.queue = newFakeQueue(f)
	return f
}

func (f *fakeDevice) MTU() (int, error)        { return f.mtu, nil }
func (f *fakeDevice) Name() (string, error)    { return "fake0", nil }
func (f *fakeDevice) Events() <-chan tun.Event { return f.events }
func (f *fakeDevice) JoinsUDP() bool           { return true }
func (f *fakeDevice) Queues() []Queue          { return []Queue{f.queue} }

func (f *fakeDevice) Close() error {
	f.once.Do(func() {
		f.closed.Store(true)
		close(f.queue.arrivals)
	})
	return nil
}

func (q *fakeQueue) Wait() {
	if frames, open := <-q.arrivals; open {
		q.put(frames)
	}
}

func (q *fakeQueue) Read(frame []byte) (int, error) {
	q.lock.Lock()
	defer q.lock.Unlock()
	if len(q.ready) == 0 && q.closed.Load() {
		return 0, os.ErrClosed
	}
	if len(q.ready) == 0 {
		return 0, nil
	}
	next := q.ready[0]
	q.ready = q.ready[1:]
	if next == nil {
		q.failures.Add(1)
		return 0, q.failing
	}
	return copy(frame, next), nil
}

// put makes frames ready.
func (q *fakeQueue) put(frames [][]byte) {
	q.lock.Lock()
	defer q.lock.Unlock()
	q.ready = frames
}

// putFrame writes a packet behind a header that asks for nothing.
func putFrame(frame, pkt []byte) int {
	clear(frame[:vnet.HeaderLen])
	return vnet.HeaderLen + copy(frame[vnet.HeaderLen:], pkt)
}

func (f *fakeDevice) Write(pieces [][]byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.discard {
		return nil
	}
	var s vnet.Super
	frame := append(bytes.Join(pieces, nil), make([]byte, esp.MaxTailroom)...)
	if err := s.Parse(frame[:len(frame)-esp.MaxTailroom]); err != nil {
		return err
	}
	for i := range s.Segments() {
		f.written = append(f.written, bytes.Clone(s.Segment(i)))
	}
	f.frames++
	if f.answer != nil {
		f.queue.put(f.answer)
		f.answer = nil
	}
	return nil
}

// take returns what was written since the last call.
func (f *fakeDevice) take() [][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.written
	f.written = nil
	return out
}

// sent is one call of the sender.
type sent struct {
	pair locator.Pair
	udp  bool
	pkts [][]byte

	trains int
}

// fakeSender records what is sent, or hands it to deliver.
type fakeSender struct {
	mu         sync.Mutex
	sent       []sent
	keepalives []locator.Pair
	err        error
	deliver    func(pair locator.Pair, udp bool, trains []transport.Train)
}

func (f *fakeSender) SendESP(pair locator.Pair, udp bool, trains []transport.Train) error {
	if f.deliver != nil {
		f.deliver(pair, udp, trains)
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	s := sent{pair: pair, udp: udp, trains: len(trains)}
	for _, t := range trains {
		for p := range slices.Chunk(t.Data, t.Size) {
			s.pkts = append(s.pkts, bytes.Clone(p))
		}
	}
	f.sent = append(f.sent, s)
	return nil
}

func (f *fakeSender) SendKeepalive(pair locator.Pair) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keepalives = append(f.keepalives, pair)
	return f.err
}

func (f *fakeSender) take() []sent {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.sent
	f.sent = nil
	return out
}

func (f *fakeSender) takeKeepalives() []locator.Pair {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.keepalives
	f.keepalives = nil
	return out
}

// eventLog collects events.
type eventLog struct {
	mu   sync.Mutex
	list []esp.Event
}

func (l *eventLog) add(e esp.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, e)
}

func (l *eventLog) take() []esp.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.list
	l.list = nil
	return out
}

func (l *eventLog) kinds() (out []esp.EventKind) {
	for _, e := range l.take() {
		out = append(out, e.Kind)
	}
	return out
}

// side is one end of a tunnel.
type side struct {
	t      testing.TB
	dp     *DataPath
	dev    *fakeDevice
	sender *fakeSender
	events *eventLog

	pushing sync.Mutex
	pushed  *fakeQueue // what push reads from: the reader of the data path has another
	out     *outbound
}

func newSide(t testing.TB, change ...func(*Config)) *side {
	t.Helper()
	s := &side{t: t, dev: newFakeDevice(), sender: &fakeSender{}, events: &eventLog{}}
	cfg := Config{Device: s.dev, Send: s.sender, Events: s.events.add}
	for _, c := range change {
		c(&cfg)
	}
	dp, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.pushed = newFakeQueue(s.dev)
	s.dp, s.out = dp, newOutbound(dp, s.pushed)
	t.Cleanup(func() {
		if err := dp.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *side) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// push carries packets as if they had been read from the device, and returns when
// that is done.
func (s *side) push(pkts ...[]byte) { s.pushFrames(framesOf(pkts...)) }

// framesOf puts the device's header in front of packets.
func framesOf(pkts ...[]byte) (frames [][]byte) {
	for _, p := range pkts {
		frame := make([]byte, vnet.HeaderLen+len(p))
		putFrame(frame, p)
		frames = append(frames, frame)
	}
	return frames
}

// pushFrames does the same for frames and allocates nothing.
func (s *side) pushFrames(frames [][]byte) {
	s.pushing.Lock()
	defer s.pushing.Unlock()
	s.pushed.put(frames)
	for {
		n, _ := s.out.read()
		if n == 0 {
			return
		}
		s.out.batch(n, false)
	}
}

// receive hands ESP packets to the data path.
func (s *side) receive(pair locator.Pair, udp bool, pkts ...[]byte) {
	batch := make([]transport.ESPTrain, len(pkts))
	for i, p := range pkts {
		batch[i] = transport.ESPTrain{Pair: pair, UDP: udp, Train: transport.Train{Data: bytes.Clone(p), Size: len(p)}}
	}
	s.dp.HandleESP(batch)
}

// arrived is what the other side's transport makes of trains.
func arrived(pair locator.Pair, udp bool, trains []transport.Train) (batch []transport.ESPTrain) {
	for _, t := range trains {
		t.Data = bytes.Clone(t.Data)
		batch = append(batch, transport.ESPTrain{Pair: pair, UDP: udp, Train: t})
	}
	return batch
}

func (s *side) expectEvents(want ...esp.EventKind) {
	s.t.Helper()
	got := s.events.kinds()
	if len(got) != len(want) {
		s.t.Fatalf("events %v, want %v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			s.t.Fatalf("events %v, want %v", got, want)
		}
	}
}

var (
	pairAB = locator.Pair{Local: netip.MustParseAddrPort("192.0.2.1:4500"), Remote: netip.MustParseAddrPort("198.51.100.1:4500")}
	pairBA = pairAB.Reverse()
	pairA2 = locator.Pair{Local: netip.MustParseAddrPort("203.0.113.9:4500"), Remote: pairAB.Remote}

	netA = []esp.Selector{esp.PrefixSelector(netip.MustParsePrefix("10.0.0.0/24")), esp.PrefixSelector(netip.MustParsePrefix("fd00:a::/64"))}
	netB = []esp.Selector{esp.PrefixSelector(netip.MustParsePrefix("10.1.0.0/24")), esp.PrefixSelector(netip.MustParsePrefix("fd00:b::/64"))}
)

const (
	theHost   = esp.HostID(1)
	testIters = 200
)

type algorithm struct {
	name  string
	encr  suite.Encr
	integ suite.IntegID
}

var algorithms = []algorithm{
	{"aes128gcm16", suite.Encr{ID: suite.EncrAESGCM16, KeyBits: 128}, suite.IntegNone},
	{"chacha20poly1305", suite.Encr{ID: suite.EncrChaCha20Poly1305}, suite.IntegNone},
	{"aes256-sha256", suite.Encr{ID: suite.EncrAESCBC, KeyBits: 256}, suite.IntegHMACSHA256},
}

func (a algorithm) sa(spi uint32) esp.SA {
	return esp.SA{
		SPI: spi, Encr: a.encr, Integ: a.integ,
		EncrKey:  bytes.Repeat([]byte{byte(spi)}, a.encr.KeyMaterialLen()),
		IntegKey: bytes.Repeat([]byte{byte(spi >> 8)}, a.integ.KeyLen()),
	}
}

// children returns the two ends of one Child SA.
func (a algorithm) children(id esp.ChildID) (forA, forB esp.Child) {
	ab, ba := a.sa(0x10000+uint32(id)), a.sa(0x20000+uint32(id))
	forA = esp.Child{ID: id, Host: theHost, In: ba, Out: ab, Local: netA, Remote: netB}
	forB = esp.Child{ID: id, Host: theHost, In: ab, Out: ba, Local: netB, Remote: netA}
	return forA, forB
}

// tunnel makes two sides with a host each. Packets stay in the senders until the
// test carries them over.
func tunnel(t testing.TB, udp bool, change ...func(*Config)) (a, b *side) {
	a, b = newSide(t, change...), newSide(t, change...)
	a.must(a.dp.AddHost(theHost, esp.Path{Pair: pairAB, UDP: udp}))
	b.must(b.dp.AddHost(theHost, esp.Path{Pair: pairBA, UDP: udp}))
	return a, b
}

// add installs and activates a Child SA on both sides.
func add(a, b *side, alg algorithm, id esp.ChildID, change ...func(*esp.Child)) {
	a.t.Helper()
	forA, forB := alg.children(id)
	for _, c := range change {
		c(&forA)
		c(&forB)
	}
	a.must(a.dp.AddChild(forA))
	b.must(b.dp.AddChild(forB))
	a.must(a.dp.ActivateChild(id))
	b.must(b.dp.ActivateChild(id))
}

// carry moves what one side has sent to the other, and returns what comes out of
// the other's device.
func carry(from, to *side) [][]byte {
	for _, s := range from.sender.take() {
		pair := s.pair.Reverse()
		to.receive(pair, s.udp, s.pkts...)
	}
	return to.dev.take()
}

// fakeClock is a clock that tests move.
type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func newFakeClock() *fakeClock {
	return &fakeClock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// zeroReader is not random, for SAs that must be reproducible.
type zeroReader struct{}

func (zeroReader) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// hostSelector is the selector for an address or a prefix.
func hostSelector(s string) esp.Selector {
	if p, err := netip.ParsePrefix(s); err == nil {
		return esp.PrefixSelector(p)
	}
	a := netip.MustParseAddr(s)
	return esp.Selector{Start: a, End: a, EndPort: 65535}
}

// sum is a plain Internet checksum, to check the code under test with.
func sum(parts ...[]byte) uint16 {
	var v uint64
	all := bytes.Join(parts, nil)
	if len(all)%2 != 0 {
		all = append(all, 0)
	}
	for i := 0; i < len(all); i += 2 {
		v += uint64(binary.BigEndian.Uint16(all[i:]))
	}
	for v > 0xffff {
		v = v>>16 + v&0xffff
	}
	return ^uint16(v)
}

// pseudo is the pseudo-header of an IP packet without options or extensions, and
// its upper layer.
func pseudo(pkt []byte) (header, upper []byte) {
	if pkt[0]>>4 == 4 {
		upper = pkt[20:]
		header = append(bytes.Clone(pkt[12:20]), 0, pkt[9], byte(len(upper)>>8), byte(len(upper)))
		return header, upper
	}
	upper = pkt[40:]
	header = append(bytes.Clone(pkt[8:40]), 0, 0, byte(len(upper)>>8), byte(len(upper)), 0, 0, 0, pkt[6])
	return header, upper
}

// ipPacket builds an IP packet of either family.
func ipPacket(src, dst string, proto byte, upper []byte) []byte {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	if s.Is4() {
		b := make([]byte, 20)
		b[0], b[8], b[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(upper)))
		b[6] = 0x40 // DF
		copy(b[12:], s.AsSlice())
		copy(b[16:], d.AsSlice())
		binary.BigEndian.PutUint16(b[10:], sum(b))
		return append(b, upper...)
	}
	b := make([]byte, 40)
	b[0], b[6], b[7] = 0x60, proto, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(upper)))
	copy(b[8:], s.AsSlice())
	copy(b[24:], d.AsSlice())
	return append(b, upper...)
}

// udpPacket builds a UDP packet with n octets of data.
func udpPacket(src, dst string, n int) []byte {
	u := make([]byte, 8+n)
	binary.BigEndian.PutUint16(u, 4000)
	binary.BigEndian.PutUint16(u[2:], 5000)
	binary.BigEndian.PutUint16(u[4:], uint16(len(u)))
	for i := range u[8:] {
		u[8+i] = byte(i)
	}
	return ipPacket(src, dst, 17, u)
}
