package xfrm

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
)

// DataPath implements esp.DataPath with the kernel's ESP.
type DataPath struct {
	cfg    Config
	kernel kernel
	lock   io.Closer
	sender atomic.Pointer[Sender]

	mu          sync.Mutex // guards what follows, and the order of what the kernel is told
	hosts       map[esp.HostID]*host
	children    map[esp.ChildID]*child
	states      map[stateID]*child
	spd         map[selector]*entry
	reqids      map[uint32]bool // in use
	lastReqid   uint32
	activations uint64
	pending     []esp.Event // to be told when the lock is free
	mtu         int         // of the interface
	shut        bool

	bell       chan struct{} // a token: the watch has something new to look at
	closing    chan struct{} // closed by Close
	gone       chan struct{} // closed when the interface has gone
	goneErr    error         // why, set before gone is closed
	goneOnce   sync.Once
	goroutines sync.WaitGroup
}

var _ esp.DataPath = (*DataPath)(nil)

// New makes the interface and starts the data path. What an earlier run of the same
// owner has left in the kernel is removed first.
func New(cfg Config) (*DataPath, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	lock, err := cfg.Owner.lock()
	if err != nil {
		return nil, err
	}
	if err := sweep(cfg.Owner); err != nil {
		return nil, errors.Join(fmt.Errorf("remove what an earlier run has left in the kernel: %w", err), lock.Close())
	}
	d := newDataPath(cfg, nil)
	k, err := openKernel(cfg, d.kernelEvent, d.interfaceGone)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	d.kernel, d.lock = k, lock
	d.goroutines.Go(d.watchLoop)
	return d, nil
}

func newDataPath(cfg Config, k kernel) *DataPath {
	d := &DataPath{
		cfg: cfg, kernel: k, mtu: cfg.MTU,
		hosts: map[esp.HostID]*host{}, children: map[esp.ChildID]*child{}, states: map[stateID]*child{},
		spd: map[selector]*entry{}, reqids: map[uint32]bool{},
		bell: make(chan struct{}, 1), closing: make(chan struct{}), gone: make(chan struct{}),
	}
	if cfg.Send != nil {
		d.SetSender(cfg.Send)
	}
	return d
}

// SetSender says how keepalives are sent. Until it is called there are none.
func (d *DataPath) SetSender(s Sender) { d.sender.Store(&s) }

// Name is the name of the tunnel's interface.
func (d *DataPath) Name() (string, error) { return d.cfg.Name, nil }

// MTU is that of the tunnel's interface.
func (d *DataPath) MTU() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mtu
}

// PolicyBased says whether the tunnel does without an XFRM interface.
func (d *DataPath) PolicyBased() bool { return d.cfg.PolicyBased }

// Done is closed when the interface has gone otherwise than by Close; Err then says
// more.
func (d *DataPath) Done() <-chan struct{} { return d.gone }

// Err says why the interface has gone; nil while it is there and after Close.
func (d *DataPath) Err() error {
	select {
	case <-d.gone:
		return d.goneErr
	default:
		return nil
	}
}

func (d *DataPath) interfaceGone(err error) {
	d.goneOnce.Do(func() {
		d.goneErr = err
		close(d.gone)
	})
}

// HandleESP is for packets that reach the sockets; the kernel takes its own before.
func (d *DataPath) HandleESP([]transport.ESPTrain) {}

// raise queues an event until the lock is free.
func (d *DataPath) raise(e esp.Event) { d.pending = append(d.pending, e) }

// unlock frees the lock and tells what has happened under it.
func (d *DataPath) unlock() {
	events := d.pending
	d.pending = nil
	d.mu.Unlock()
	for _, e := range events {
		d.cfg.Events(e)
	}
}

// newReqid draws a number that the kernel knows our states by.
func (d *DataPath) newReqid() uint32 {
	for {
		d.lastReqid = (d.lastReqid + 1) % numberCount
		id := d.cfg.Owner.base() | d.lastReqid
		if d.lastReqid > reservedNumbers && !d.reqids[id] {
			d.reqids[id] = true
			return id
		}
	}
}

// AddHost implements esp.DataPath.
func (d *DataPath) AddHost(id esp.HostID, path esp.Path) error {
	if err := checkPath(path); err != nil {
		return fmt.Errorf("add host %d: %w", id, err)
	}
	d.mu.Lock()
	defer d.unlock()
	if d.shut {
		return esp.ErrDataPathClosed
	}
	if d.hosts[id] != nil {
		return fmt.Errorf("host %d is known already; move it instead", id)
	}
	if err := d.kernel.Pin(path); err != nil {
		return fmt.Errorf("add host %d: %w", id, err)
	}
	h := &host{id: id, path: path, reqid: d.newReqid(), children: map[esp.ChildID]*child{}}
	h.watch.moved(path, d.cfg.Now())
	d.hosts[id] = h
	d.ring()
	return nil
}

// MoveHost implements esp.DataPath.
func (d *DataPath) MoveHost(id esp.HostID, path esp.Path) error {
	if err := checkPath(path); err != nil {
		return fmt.Errorf("move host %d: %w", id, err)
	}
	d.mu.Lock()
	defer d.unlock()
	h := d.hosts[id]
	if h == nil {
		return fmt.Errorf("move host %d: %w", id, esp.ErrUnknownHost)
	}
	old := h.path
	h.path = path
	h.watch.moved(path, d.cfg.Now())
	d.ring()
	var err error
	if old.Pair != path.Pair {
		err = d.kernel.Pin(path)
	}
	if !sameRoad(old, path) {
		err = errors.Join(err, d.move(h, path))
	}
	if old.Pair != path.Pair {
		err = errors.Join(err, d.kernel.Unpin(old))
	}
	if old.Sparing != path.Sparing {
		err = errors.Join(err, d.reinstall(h))
	}
	if err = errors.Join(err, d.fitMTU(h)); err != nil {
		return fmt.Errorf("move host %d: %w", id, err)
	}
	return nil
}

// RemoveHost implements esp.DataPath.
func (d *DataPath) RemoveHost(id esp.HostID) error {
	d.mu.Lock()
	defer d.unlock()
	h := d.hosts[id]
	if h == nil {
		return fmt.Errorf("remove host %d: %w", id, esp.ErrUnknownHost)
	}
	var errs []error
	for _, c := range h.sortedChildren() {
		errs = append(errs, d.remove(c))
	}
	errs = append(errs, d.kernel.Unpin(h.path))
	delete(d.hosts, id)
	delete(d.reqids, h.reqid)
	errs = append(errs, d.fitMTU(h))
	return errors.Join(errs...)
}

// AddChild implements esp.DataPath.
func (d *DataPath) AddChild(desc esp.Child) error {
	desc.TFC = desc.TFC && d.cfg.TFC
	c, err := newChild(&desc)
	if err != nil {
		return fmt.Errorf("add child sa %d: %w", desc.ID, err)
	}
	d.mu.Lock()
	defer d.unlock()
	if err := d.add(c); err != nil {
		c.zero()
		return fmt.Errorf("add child sa %d: %w", desc.ID, err)
	}
	return nil
}

func (d *DataPath) add(c *child) error {
	if d.shut {
		return esp.ErrDataPathClosed
	}
	c.host = d.hosts[c.desc.Host]
	if c.host == nil {
		return fmt.Errorf("host %d: %w", c.desc.Host, esp.ErrUnknownHost)
	}
	if d.children[c.id] != nil {
		return errors.New("a child sa with this id exists")
	}
	c.added, c.reqid = d.cfg.Now(), d.newReqid()
	c.place(c.host.path)
	if err := d.kernel.AddState(&c.in.state); err != nil {
		delete(d.reqids, c.reqid)
		return fmt.Errorf("install the inbound state: %w", err)
	}
	d.children[c.id], c.host.children[c.id] = c, c
	d.states[c.in.stateID] = c
	if err := d.kernel.AddState(&c.out.state); err != nil {
		d.remove(c)
		return fmt.Errorf("install the outbound state: %w", err)
	}
	d.states[c.out.stateID] = c
	if err := d.accept(c); err != nil {
		d.remove(c)
		return fmt.Errorf("install the inbound policies: %w", err)
	}
	d.ring()
	return d.fitMTU(c.host)
}

// ActivateChild implements esp.DataPath. Activating a Child SA again makes it the
// latest one.
func (d *DataPath) ActivateChild(id esp.ChildID) error {
	d.mu.Lock()
	defer d.unlock()
	c := d.children[id]
	if c == nil {
		return fmt.Errorf("activate child sa %d: %w", id, esp.ErrUnknownChild)
	}
	if err := d.use(c); err != nil {
		return fmt.Errorf("activate child sa %d: %w", id, err)
	}
	return nil
}

// RemoveChild implements esp.DataPath.
func (d *DataPath) RemoveChild(id esp.ChildID) error {
	d.mu.Lock()
	defer d.unlock()
	c := d.children[id]
	if c == nil {
		return fmt.Errorf("remove child sa %d: %w", id, esp.ErrUnknownChild)
	}
	return d.remove(c)
}

// remove takes a Child SA out of the kernel, policies first, and keeps its counters.
func (d *DataPath) remove(c *child) error {
	errs := []error{d.forget(c)}
	for _, x := range []*half{&c.out, &c.in} {
		if d.states[x.stateID] != c {
			continue // not installed
		}
		delete(d.states, x.stateID)
		last, err := d.kernel.RemoveState(x.stateID)
		switch {
		case err == nil:
			d.record(c, x, &last, d.cfg.Now())
		case !errors.Is(err, errGone):
			errs = append(errs, err)
		}
	}
	c.host.former = c.host.former.Add(c.stats())
	c.zero()
	delete(d.reqids, c.reqid)
	delete(c.host.children, c.id)
	delete(d.children, c.id)
	return errors.Join(errs...)
}

// QueryChild implements esp.DataPath.
func (d *DataPath) QueryChild(id esp.ChildID) (esp.Stats, error) {
	d.mu.Lock()
	defer d.unlock()
	c := d.children[id]
	if c == nil {
		return esp.Stats{}, fmt.Errorf("query child sa %d: %w", id, esp.ErrUnknownChild)
	}
	d.read(c, d.cfg.Now())
	return c.stats(), nil
}

// QueryHost implements esp.DataPath.
func (d *DataPath) QueryHost(id esp.HostID) (esp.Stats, error) {
	d.mu.Lock()
	defer d.unlock()
	h := d.hosts[id]
	if h == nil {
		return esp.Stats{}, fmt.Errorf("query host %d: %w", id, esp.ErrUnknownHost)
	}
	sum, now := h.former, d.cfg.Now()
	for _, c := range h.children {
		d.read(c, now)
		sum = sum.Add(c.stats())
	}
	return sum, nil
}

// read brings the counters of a Child SA up to date. It reports whether packets have
// come in and gone out since they were read last.
func (d *DataPath) read(c *child, now time.Time) (in, out bool) {
	for _, x := range []struct {
		half *half
		more *bool
	}{{&c.in, &in}, {&c.out, &out}} {
		if s, err := d.kernel.State(x.half.stateID); err == nil {
			*x.more = d.record(c, x.half, &s, now)
		}
	}
	return in, out
}

// record takes in the counters of one direction, and tells of the first packet.
func (d *DataPath) record(c *child, x *half, s *snapshot, now time.Time) (more bool) {
	more = x.meter.read(s, now)
	if more && x == &c.in && !c.seen {
		c.seen = true
		d.raise(esp.Event{Kind: esp.FirstInbound, Host: c.host.id, Child: c.id, SPI: c.in.spi, Observed: c.host.path.Pair})
	}
	return more
}

// Close implements esp.DataPath: it removes states, policies and the interface.
func (d *DataPath) Close() error {
	d.mu.Lock()
	if d.shut {
		d.mu.Unlock()
		return nil
	}
	d.shut = true
	var errs []error
	for _, h := range d.hosts {
		for _, c := range h.sortedChildren() {
			errs = append(errs, d.remove(c))
		}
		errs = append(errs, d.kernel.Unpin(h.path))
	}
	clear(d.hosts)
	close(d.closing)
	d.unlock()
	errs = append(errs, d.kernel.Close())
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	d.goroutines.Wait()
	return errors.Join(errs...)
}
