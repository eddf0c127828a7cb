package xfrm

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// linux is the kernel of this machine, in the network namespace it was opened in.
type linux struct {
	cfg    Config
	log    *slog.Logger
	ifID   uint32 // zero: policy-based
	socket *nl.SocketHandle
	events *nl.NetlinkSocket
	route  *netlink.Handle
	link   netlink.Link
	pins   pins

	done       chan struct{} // closed by Close
	goroutines sync.WaitGroup
}

// openKernel makes the interface and listens to what the kernel tells.
func openKernel(cfg Config, event func(kernelEvent), gone func(error)) (*linux, error) {
	k := &linux{cfg: cfg, log: cfg.Log, done: make(chan struct{})}
	if err := k.open(event, gone); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

func (k *linux) open(event func(kernelEvent), gone func(error)) (err error) {
	if k.socket, err = openSocket(); err != nil {
		return err
	}
	if k.events, err = nl.Subscribe(unix.NETLINK_XFRM, nl.XFRMNLGRP_EXPIRE, nl.XFRMNLGRP_MAPPING); err != nil {
		return fmt.Errorf("listen to the kernel's IPsec: %w", err)
	}
	k.goroutines.Go(func() { k.listen(event) })
	if k.route, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	if err := k.makeInterface(); err != nil {
		return err
	}
	if err := k.watchInterface(gone); err != nil {
		return err
	}
	return k.openPins()
}

// openSocket opens the channel to the kernel's IPsec.
func openSocket() (*nl.SocketHandle, error) {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_XFRM)
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT):
		return nil, fmt.Errorf("this kernel has no IPsec (CONFIG_XFRM_USER): %w", err)
	case err != nil:
		return nil, fmt.Errorf("open the channel to the kernel's IPsec: %w", err)
	}
	_ = s.SetExtAck(true) // the kernel then says in words what it does not like
	const answerTime = 10 * time.Second
	if err := s.SetReceiveTimeout(&unix.Timeval{Sec: int64(answerTime / time.Second)}); err != nil {
		return nil, fmt.Errorf("limit the time to wait for the kernel: %w", err)
	}
	return &nl.SocketHandle{Socket: s}, nil
}

// Close removes the interface, and whatever of the owner's is still in the kernel.
func (k *linux) Close() error {
	select {
	case <-k.done:
		return nil
	default:
	}
	close(k.done)
	var errs []error
	if k.link != nil {
		errs = append(errs, k.removeInterface())
	}
	if k.route != nil {
		errs = append(errs, sweep(k.cfg.Owner))
		k.route.Close()
	}
	if k.events != nil {
		k.events.Close()
	}
	if k.socket != nil {
		k.socket.Close()
	}
	k.goroutines.Wait()
	return errors.Join(errs...)
}

// ask makes one request and returns the answers of a type; zero for an
// acknowledgement alone.
func (k *linux) ask(kind, flags int, answer uint16, parts ...nl.NetlinkRequestData) ([][]byte, error) {
	req := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_XFRM: k.socket}
	for _, p := range parts {
		req.AddData(p)
	}
	if k.ifID != 0 && kind != nl.XFRM_MSG_GETSA {
		req.AddData(nl.NewRtAttr(nl.XFRMA_IF_ID, nl.Uint32Attr(k.ifID)))
	}
	return req.Execute(unix.NETLINK_XFRM, answer)
}

// AddState implements kernel.
func (k *linux) AddState(s *state) error {
	return k.putState(nl.XFRM_MSG_NEWSA, unix.NLM_F_CREATE|unix.NLM_F_EXCL, s)
}

// UpdatePorts implements kernel. Of all that an update brings, the kernel takes ports
// and limits; sequence numbers and counters stay.
func (k *linux) UpdatePorts(s *state) error { return k.putState(nl.XFRM_MSG_UPDSA, 0, s) }

func (k *linux) putState(kind, flags int, s *state) error {
	algorithms, err := algorithmsOf(s.sa)
	if err != nil {
		return err
	}
	parts := []nl.NetlinkRequestData{stateInfo(s)}
	for _, a := range algorithms {
		parts = append(parts, a.attribute())
	}
	parts = append(parts, nl.NewRtAttr(nl.XFRMA_REPLAY_ESN_VAL, replayAttribute(s.window, s.replay)))
	if s.encap != nil {
		parts = append(parts, nl.NewRtAttr(nl.XFRMA_ENCAP, encapTemplate(s.encap)))
	}
	if s.encap != nil && !s.outbound {
		// Kernels from 5.17 on tell of another source once a second, not for each packet.
		parts = append(parts, nl.NewRtAttr(nl.XFRMA_MTIMER_THRESH, nl.Uint32Attr(1)))
	}
	if s.used != nil {
		parts = append(parts, nl.NewRtAttr(nl.XFRMA_LTIME_VAL, usageAttribute(s.used, k.now())))
	}
	if s.tfc {
		parts = append(parts, nl.NewRtAttr(nl.XFRMA_TFCPAD, nl.Uint32Attr(math.MaxUint32))) // as far as fits
	}
	if s.outbound && !k.cfg.CopyDSCP {
		parts = append(parts, nl.NewRtAttr(nl.XFRMA_SA_EXTRA_FLAGS, nl.Uint32Attr(nl.XFRM_SA_XFLAG_DONT_ENCAP_DSCP)))
	}
	if s.outbound && k.cfg.Mark != 0 {
		parts = append(parts, nl.NewRtAttr(nl.XFRMA_SET_MARK, nl.Uint32Attr(k.cfg.Mark)))
	}
	_, err = k.ask(kind, flags, 0, parts...)
	return explainState(err)
}

func (k *linux) now() time.Time { return k.cfg.Now() }

// explainState says what may be the matter when a state is refused.
func explainState(err error) error {
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: the kernel lacks the algorithm", err)
	case errors.Is(err, unix.EPROTONOSUPPORT):
		return fmt.Errorf("%w: the kernel lacks ESP", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: it takes root or CAP_NET_ADMIN", err)
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%w: another program uses this SPI", err)
	}
	return err
}

// State implements kernel.
func (k *linux) State(id stateID) (snapshot, error) {
	answers, err := k.ask(nl.XFRM_MSG_GETSA, 0, nl.XFRM_MSG_NEWSA, identifier(id))
	switch {
	case errors.Is(err, unix.ESRCH):
		return snapshot{}, errGone
	case err != nil:
		return snapshot{}, fmt.Errorf("read a state: %w", err)
	case len(answers) == 0:
		return snapshot{}, errGone
	}
	return parseState(answers[0])
}

// lostGap is skipped when the last sequence number of a removed state is not known: a
// number is never used twice.
const lostGap = 1 << 16

// RemoveState implements kernel. What the state was when it stopped comes with the
// notice that the kernel sends of its removal.
func (k *linux) RemoveState(id stateID) (snapshot, error) {
	before, err := k.State(id)
	if err != nil {
		return before, err
	}
	notices, err := nl.Subscribe(unix.NETLINK_XFRM, nl.XFRMNLGRP_SA)
	if err != nil {
		return before, fmt.Errorf("listen for the removal of a state: %w", err)
	}
	defer notices.Close()
	if _, err := k.ask(nl.XFRM_MSG_DELSA, 0, 0, identifier(id)); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return before, errGone
		}
		return before, fmt.Errorf("remove a state: %w", err)
	}
	if last, ok := lastWords(notices, id); ok {
		return last, nil
	}
	k.log.Warn("the kernel did not tell how a state ended; skipping sequence numbers", "spi", id.spi)
	before.replay.out += lostGap
	return before, nil
}

// lastWords finds the notice of a state's removal, which is there already.
func lastWords(notices *nl.NetlinkSocket, id stateID) (snapshot, bool) {
	// Only a machine that hardly gets to run takes any time at all.
	_ = notices.SetReceiveTimeout(&unix.Timeval{Sec: 2})
	for range 64 {
		messages, from, err := notices.Receive()
		if err != nil {
			return snapshot{}, false
		}
		for _, m := range messages {
			if from.Pid != nl.PidKernel || m.Header.Type != nl.XFRM_MSG_DELSA {
				continue
			}
			if got, s, err := parseRemoval(m.Data); err == nil && got == id {
				return s, true
			}
		}
	}
	return snapshot{}, false
}

// SetPolicy implements kernel. XFRM_MSG_UPDPOLICY makes a policy or replaces it in one
// step.
func (k *linux) SetPolicy(p policy) error {
	_, err := k.ask(nl.XFRM_MSG_UPDPOLICY, 0, 0, policyInfo(p), nl.NewRtAttr(nl.XFRMA_TMPL, templateInfo(p)))
	if err != nil {
		return fmt.Errorf("set the policy for %v to %v: %w", p.sel.src, p.sel.dst, err)
	}
	return nil
}

// RemovePolicy implements kernel.
func (k *linux) RemovePolicy(key policyKey) error {
	id := &nl.XfrmUserpolicyId{Sel: selectorInfo(key.sel), Dir: uint8(key.dir)}
	if _, err := k.ask(nl.XFRM_MSG_DELPOLICY, 0, 0, id); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the policy for %v to %v: %w", key.sel.src, key.sel.dst, err)
	}
	return nil
}

// Migrate implements kernel. The kernel moves states by way of a policy; for a state
// that moves alone there is one for this purpose, which no packet meets.
func (k *linux) Migrate(m migration) error {
	via := m.via
	if via == nil {
		via = carrier(m)
		if err := k.SetPolicy(*via); err != nil {
			return err
		}
		defer func() { _ = k.RemovePolicy(via.policyKey) }()
	}
	parts := []nl.NetlinkRequestData{
		&nl.XfrmUserpolicyId{Sel: selectorInfo(via.sel), Dir: uint8(via.dir)},
		nl.NewRtAttr(nl.XFRMA_MIGRATE, migrateInfo(m)),
	}
	if m.encap != nil {
		parts = append(parts, nl.NewRtAttr(nl.XFRMA_ENCAP, encapTemplate(m.encap)))
	}
	if _, err := k.ask(nl.XFRM_MSG_MIGRATE, 0, 0, parts...); err != nil {
		return fmt.Errorf("migrate a state: %w", err)
	}
	return nil
}

// carrier is an inbound policy from the broadcast address to itself.
func carrier(m migration) *policy {
	nobody := netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), 32)
	return &policy{
		policyKey: policyKey{dirIn, selector{src: nobody, dst: nobody}}, priority: 1,
		src: m.oldSrc, dst: m.oldDst, reqid: m.reqid,
	}
}

// listen hands on what the kernel tells, until the socket is closed.
func (k *linux) listen(event func(kernelEvent)) {
	for {
		messages, from, err := k.events.Receive()
		select {
		case <-k.done:
			return
		default:
		}
		switch {
		case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue // a few were lost; they come again, or the counters tell
		case err != nil:
			k.log.Error("the kernel's IPsec is not heard any more", "error", err)
			return
		case from.Pid != nl.PidKernel:
			continue
		}
		for _, m := range messages {
			if e, ok := parseEvent(m.Header.Type, m.Data); ok {
				event(e)
			}
		}
	}
}
