package transport

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/internal/ratelimit"
)

// ErrNoSocket is returned when nothing listens on the local end of a pair.
var ErrNoSocket = errors.New("no socket for the local address and port")

// ephemeralTries is how often an ephemeral port is drawn until it is free on all
// addresses.
const ephemeralTries = 16

// Transport is a set of open sockets. Its methods may be called from several
// goroutines.
type Transport struct {
	cfg      Config
	handler  Handler
	log      *slog.Logger
	sockets  []*socket
	ports    [2]uint16
	counters counters

	readErrors *ratelimit.Bucket // limits what the readers log
	pathErrors *ratelimit.Bucket // limits what Config.PathErrors gets
	readers    sync.WaitGroup
	closeOnce  sync.Once
	closed     chan struct{}
}

// Listen opens the sockets and starts to hand what arrives to h. Without
// addresses in cfg it listens on both families, and does with one where the
// machine has only that.
func Listen(cfg Config, h Handler, log *slog.Logger) (*Transport, error) {
	if cfg.IKEPort != 0 && cfg.IKEPort == cfg.NATTPort {
		return nil, fmt.Errorf("port %d is given for IKE and for NAT traversal: they need different ports", cfg.IKEPort)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	t := &Transport{
		cfg: cfg, handler: h, log: log,
		readErrors: ratelimit.NewBucket(1, 5),
		pathErrors: ratelimit.NewBucket(pathErrorsPerSecond, pathErrorsBurst),
		closed:     make(chan struct{}),
	}
	if err := t.openAll(); err != nil {
		for _, s := range t.sockets {
			s.file.Close()
		}
		return nil, err
	}
	t.watchErrors()
	// Every socket is known before the first packet can ask for one.
	for _, s := range t.sockets {
		r := newReader(t, s)
		t.readers.Go(r.run)
	}
	return t, nil
}

func (t *Transport) openAll() error {
	addresses, err := t.bindAddresses()
	if err != nil {
		return err
	}
	numbers := [...]uint16{IKE: t.cfg.IKEPort, NATT: t.cfg.NATTPort}
	order := []Port{IKE, NATT}
	if t.cfg.IKEPort == 0 { // an ephemeral port must not take the fixed one
		order = []Port{NATT, IKE}
	}
	for _, port := range order {
		sockets, err := t.openPort(port, numbers[port], addresses)
		if err != nil {
			return err
		}
		t.sockets = append(t.sockets, sockets...)
		t.ports[port] = sockets[0].bound.Port()
	}
	if !t.cfg.RawESP {
		return nil
	}
	sockets, err := t.openGroup(socketSpec{esp: true, port: NATT}, addresses)
	t.sockets = append(t.sockets, sockets...)
	return err
}

// bindAddresses returns what to bind. Zones are resolved when a socket is opened.
func (t *Transport) bindAddresses() ([]netip.Addr, error) {
	if len(t.cfg.Addresses) == 0 {
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}, nil
	}
	seen := make(map[netip.Addr]bool)
	var addresses []netip.Addr
	for _, a := range t.cfg.Addresses {
		a = a.Unmap()
		if !a.IsValid() || a.IsMulticast() {
			return nil, fmt.Errorf("cannot listen on address %q: give an address of this machine", a)
		}
		if !seen[a] {
			seen[a] = true
			addresses = append(addresses, a)
		}
	}
	return addresses, nil
}

// openPort opens one port on all addresses, with the same number on each.
func (t *Transport) openPort(port Port, number uint16, addresses []netip.Addr) ([]*socket, error) {
	if number != 0 {
		sockets, err := t.openGroup(socketSpec{port: port, bind: withPort(number)}, addresses)
		if err == nil || !t.cfg.Ephemeral || !portRefused(err) {
			return sockets, err
		}
		t.log.Info("port is taken, using an ephemeral one", "port", number, "for", port.String())
	}
	var err error
	for range ephemeralTries {
		var sockets []*socket
		sockets, err = t.openGroup(socketSpec{port: port}, addresses)
		if err == nil || !errors.Is(err, unix.EADDRINUSE) {
			return sockets, err
		}
	}
	return nil, fmt.Errorf("find an ephemeral %s port that is free on all addresses: %w", port, err)
}

func withPort(number uint16) netip.AddrPort { return netip.AddrPortFrom(netip.Addr{}, number) }

// portRefused reports whether another port may work where this one did not.
func portRefused(err error) bool {
	return errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EACCES)
}

// openGroup opens one socket per address: all, or none and an error. When the
// addresses are the default ones, a family that the machine lacks is left out.
// A port of zero is chosen by the first socket for all.
func (t *Transport) openGroup(spec socketSpec, addresses []netip.Addr) (sockets []*socket, err error) {
	defer func() {
		if err != nil {
			closeSockets(sockets)
			sockets = nil
		}
	}()
	var missing error
	port := spec.bind.Port()
	for _, a := range addresses {
		spec.bind = netip.AddrPortFrom(a.WithZone(""), port)
		spec.mark, spec.kernelESP = t.cfg.Mark, t.cfg.KernelESP
		if spec.zone, err = zoneIndex(a.Zone()); err != nil {
			return sockets, err
		}
		s, err := openSocket(spec)
		if err != nil && len(t.cfg.Addresses) == 0 && familyMissing(err) {
			t.log.Debug("address family is not available", "address", a, "err", err)
			missing = err
			continue
		}
		if err != nil {
			return sockets, err
		}
		sockets = append(sockets, s)
		if !spec.esp {
			port = s.bound.Port()
		}
		if spec.esp || spec.port != NATT || t.cfg.Readers < 2 {
			continue
		}
		more, err := s.companions(spec, t.cfg.Readers-1)
		sockets = append(sockets, more...)
		if err != nil {
			return sockets, err
		}
	}
	if len(sockets) == 0 {
		return nil, missing
	}
	return sockets, nil
}

// companions opens more sockets with the address and port of s, each with a reader of
// its own. The kernel gives each peer's packets to the same one of them. The first
// socket is bound before it shares the port, so that it finds out when another
// program has it.
func (s *socket) companions(spec socketSpec, n int) (more []*socket, err error) {
	if err := s.share(1); err != nil {
		return nil, err
	}
	spec.bind, spec.reuse = s.bound, true
	for range n {
		c, err := openSocket(spec)
		if err != nil {
			return more, err
		}
		more = append(more, c)
	}
	return more, nil
}

func (t *Transport) isClosed() bool {
	select {
	case <-t.closed:
		return true
	default:
		return false
	}
}

func familyMissing(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)
}

func closeSockets(sockets []*socket) {
	for _, s := range sockets {
		s.file.Close()
	}
}

// zoneIndex returns the interface index that an IPv6 zone names.
func zoneIndex(zone string) (int, error) {
	if zone == "" {
		return 0, nil
	}
	ifi, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("find the interface of zone %q: %w", zone, err)
	}
	return ifi.Index, nil
}

// LocalPort returns the number of a port, also when the kernel chose it.
func (t *Transport) LocalPort(p Port) uint16 { return t.ports[p] }

// Counters returns what was dropped or refused so far.
func (t *Transport) Counters() Counters { return t.counters.snapshot() }

// Close closes the sockets and waits until no handler runs any more. It must not
// be called from a handler.
func (t *Transport) Close() error {
	t.closeOnce.Do(func() {
		close(t.closed)
		for _, s := range t.sockets {
			s.closeDevices()
			s.wake()
		}
		closeSockets(t.sockets)
	})
	t.readers.Wait()
	return nil
}
