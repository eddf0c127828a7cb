package tun

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/internal/ratelimit"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
)

// DataPath implements esp.DataPath and takes the ESP packets of a transport.
type DataPath struct {
	cfg  Config
	dev  Device
	log  *slog.Logger
	base time.Time // instants are kept as time since base

	sender   atomic.Pointer[Sender]
	mtu      atomic.Int64 // of the TUN device
	sad      esp.SAD[*child]
	spd      esp.SPD[*child]
	counters counters
	inbound  inboundPool
	outbound []*outbound // one for each queue of the device

	// sealing is held for reading while packets are sealed. Taking it for writing
	// waits until nobody uses what has just been removed from the tables.
	sealing sync.RWMutex

	tooBig, unknownSPI, warnings *ratelimit.Bucket

	mu       sync.Mutex // guards what follows
	hosts    map[esp.HostID]*host
	kept     map[*host]struct{} // those whose path asks for keepalives
	watched  map[*host]struct{} // those whose path is watched for answers
	children map[esp.ChildID]*child
	shut     bool

	keepalives  chan struct{} // a token: the schedule has changed
	watch       chan struct{} // a token: somebody waits for an answer
	watchAsleep atomic.Bool
	closing     chan struct{} // closed by Close
	readerDone  chan struct{} // closed when nothing is read from the device any more
	readerErr   error         // why, set before readerDone is closed
	readerEnds  sync.Once     // guards both against a second queue that ends
	goroutines  sync.WaitGroup
}

var _ esp.DataPath = (*DataPath)(nil)

// New makes a data path and starts it.
func New(cfg Config) (*DataPath, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	mtu, err := cfg.Device.MTU()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the MTU of the TUN device: %w", err), cfg.Device.Close())
	}
	d := &DataPath{
		cfg: cfg, dev: cfg.Device, log: cfg.Log, base: cfg.Now(),
		tooBig:     ratelimit.NewBucket(100, 50),
		unknownSPI: ratelimit.NewBucket(10, 10),
		warnings:   ratelimit.NewBucket(0.2, 5),
		hosts:      map[esp.HostID]*host{},
		kept:       map[*host]struct{}{},
		watched:    map[*host]struct{}{},
		children:   map[esp.ChildID]*child{},
		keepalives: make(chan struct{}, 1),
		watch:      make(chan struct{}, 1),
		closing:    make(chan struct{}),
		readerDone: make(chan struct{}),
	}
	d.mtu.Store(int64(mtu))
	if cfg.Send != nil {
		d.SetSender(cfg.Send)
	}
	for _, q := range d.dev.Queues() {
		d.outbound = append(d.outbound, newOutbound(d, q))
	}
	for _, o := range d.outbound {
		d.goroutines.Go(func() { d.readDevice(o) })
	}
	d.goroutines.Go(d.watchDevice)
	d.goroutines.Go(d.keepaliveLoop)
	d.goroutines.Go(d.watchLoop)
	return d, nil
}

// SetSender says where sealed packets go. Until it is called they are dropped:
// transport and data path need each other, so one has to come first.
func (d *DataPath) SetSender(s Sender) { d.sender.Store(&s) }

// Name is the name of the TUN device.
func (d *DataPath) Name() (string, error) { return d.dev.Name() }

// MTU is the MTU of the TUN device.
func (d *DataPath) MTU() int { return int(d.mtu.Load()) }

// Done is closed when the data path no longer reads its device, because of Close
// or of an error that Err then returns.
func (d *DataPath) Done() <-chan struct{} { return d.readerDone }

// Err says why the device is no longer read; nil before and after Close.
func (d *DataPath) Err() error {
	select {
	case <-d.readerDone:
		return d.readerErr
	default:
		return nil
	}
}

// HandleESP opens a batch of packets and writes them to the TUN device. It is
// called by the receiving goroutines of the transport.
func (d *DataPath) HandleESP(batch []transport.ESPTrain) {
	w := d.inbound.take(d)
	w.run(batch)
	d.inbound.give(w)
}

// AddHost implements esp.DataPath.
func (d *DataPath) AddHost(id esp.HostID, path esp.Path) error {
	if err := path.Check(); err != nil {
		return fmt.Errorf("add host %d: %w", id, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shut {
		return esp.ErrDataPathClosed
	}
	if d.hosts[id] != nil {
		return fmt.Errorf("host %d is known already; move it instead", id)
	}
	h := &host{id: id, children: map[esp.ChildID]*child{}}
	h.move(path, d.stamp(d.cfg.Now()))
	d.hosts[id] = h
	d.schedule(h, &path)
	return nil
}

// MoveHost implements esp.DataPath.
func (d *DataPath) MoveHost(id esp.HostID, path esp.Path) error {
	if err := path.Check(); err != nil {
		return fmt.Errorf("move host %d: %w", id, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.hosts[id]
	if h == nil {
		return fmt.Errorf("move host %d: %w", id, esp.ErrUnknownHost)
	}
	stamp := d.stamp(d.cfg.Now())
	h.move(path, stamp)
	d.schedule(h, &path)
	d.forward(h, stamp)
	return nil
}

// RemoveHost implements esp.DataPath.
func (d *DataPath) RemoveHost(id esp.HostID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.hosts[id]
	if h == nil {
		return fmt.Errorf("remove host %d: %w", id, esp.ErrUnknownHost)
	}
	for _, c := range h.children {
		d.unlink(c)
	}
	d.waitForSealers()
	for _, c := range h.children {
		d.retire(c)
	}
	delete(d.hosts, id)
	d.schedule(h, &esp.Path{})
	return nil
}

// AddChild implements esp.DataPath.
func (d *DataPath) AddChild(desc esp.Child) error {
	c, err := newChild(&desc, d.cfg.Rand)
	if err != nil {
		return fmt.Errorf("add child sa %d: %w", desc.ID, err)
	}
	c.tfc = d.cfg.TFC && desc.TFC
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.link(c, desc.Host); err != nil {
		c.close()
		return fmt.Errorf("add child sa %d: %w", desc.ID, err)
	}
	return nil
}

func (d *DataPath) link(c *child, id esp.HostID) error {
	if d.shut {
		return esp.ErrDataPathClosed
	}
	c.host = d.hosts[id]
	if c.host == nil {
		return fmt.Errorf("host %d: %w", id, esp.ErrUnknownHost)
	}
	if d.children[c.id] != nil {
		return errors.New("a child sa with this id exists")
	}
	if err := d.sad.Insert(c.opener.SPI(), c); err != nil {
		return err
	}
	d.children[c.id], c.host.children[c.id] = c, c
	return nil
}

// ActivateChild implements esp.DataPath. Activating a Child SA again makes it the
// latest one.
func (d *DataPath) ActivateChild(id esp.ChildID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.children[id]
	if c == nil {
		return fmt.Errorf("activate child sa %d: %w", id, esp.ErrUnknownChild)
	}
	d.spd.Insert(c, c.host.id, c.selectors, c.remote)
	c.active = true
	return nil
}

// RemoveChild implements esp.DataPath. When it returns, no packet will be sealed
// with the SA any more.
func (d *DataPath) RemoveChild(id esp.ChildID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.children[id]
	if c == nil {
		return fmt.Errorf("remove child sa %d: %w", id, esp.ErrUnknownChild)
	}
	d.unlink(c)
	d.waitForSealers()
	d.retire(c)
	return nil
}

// unlink takes a Child SA out of the tables that packets see.
func (d *DataPath) unlink(c *child) {
	if c.active {
		d.spd.Remove(c, c.remote)
	}
	d.sad.Remove(c.opener.SPI())
}

// waitForSealers returns when no goroutine uses a table entry from before. It
// waits for the sealing of a batch, never for the network.
func (d *DataPath) waitForSealers() {
	d.sealing.Lock()
	//lint:ignore SA2001 empty on purpose: a fence
	d.sealing.Unlock()
}

// retire forgets a Child SA that packets no longer see, and keeps its counters.
func (d *DataPath) retire(c *child) {
	c.host.former = c.host.former.Add(d.stats(c))
	c.close()
	delete(c.host.children, c.id)
	delete(d.children, c.id)
}

// QueryChild implements esp.DataPath.
func (d *DataPath) QueryChild(id esp.ChildID) (esp.Stats, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.children[id]
	if c == nil {
		return esp.Stats{}, fmt.Errorf("query child sa %d: %w", id, esp.ErrUnknownChild)
	}
	return d.stats(c), nil
}

// QueryHost implements esp.DataPath.
func (d *DataPath) QueryHost(id esp.HostID) (esp.Stats, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.hosts[id]
	if h == nil {
		return esp.Stats{}, fmt.Errorf("query host %d: %w", id, esp.ErrUnknownHost)
	}
	sum := h.former
	for _, c := range h.children {
		sum = sum.Add(d.stats(c))
	}
	return sum, nil
}

// Close implements esp.DataPath. It closes the TUN device, which removes it, and
// forgets all keys. The transport may still deliver packets; they are dropped.
func (d *DataPath) Close() error {
	d.mu.Lock()
	if d.shut {
		d.mu.Unlock()
		return nil
	}
	d.shut = true
	for _, c := range d.children {
		d.unlink(c)
	}
	d.waitForSealers()
	for _, c := range d.children {
		d.retire(c)
	}
	clear(d.hosts)
	clear(d.kept)
	clear(d.watched)
	close(d.closing)
	d.mu.Unlock()
	err := d.dev.Close()
	d.goroutines.Wait()
	if err != nil {
		return fmt.Errorf("close the TUN device: %w", err)
	}
	return nil
}

// stamp turns an instant into the form kept in atomics; zero stands for never.
func (d *DataPath) stamp(now time.Time) int64 { return int64(now.Sub(d.base)) + 1 }

// instant is the opposite of stamp.
func (d *DataPath) instant(stamp int64) time.Time {
	if stamp == 0 {
		return time.Time{}
	}
	return d.base.Add(time.Duration(stamp - 1))
}
