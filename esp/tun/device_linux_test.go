package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/esp/tun/vnet"
)

// A device of several queues hands out every packet once, those of one flow in order
// and by one queue; Close lets readers that wait return.
func TestQueues(t *testing.T) {
	const queues, flows, each = 3, 20, 20 // fewer packets than a queue holds
	if _, err := os.Stat("/dev/net/tun"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and /dev/net/tun")
	}
	ns := newNamespace(t)
	var dev *nativeDevice
	ns.do(t, func() (err error) {
		if dev, err = openDevice("wfq%d", 1400, queues); err != nil {
			return err
		}
		name, err := dev.Name()
		if err != nil {
			return err
		}
		return configure(name, []string{"10.7.0.1/24"}, nil)
	})
	type seen struct{ queue, flow, number int }
	arrived := make(chan seen, flows*each)
	ended := make(chan error, queues)
	for i, q := range dev.Queues() {
		go func() {
			frame := make([]byte, vnet.HeaderLen+maxPacket)
			for {
				n, err := q.Read(frame)
				if err != nil {
					ended <- err
					return
				}
				if n == 0 {
					q.Wait()
					continue
				}
				pkt := frame[vnet.HeaderLen:n]
				var in esp.Inner
				if in.Parse(pkt) == nil && in.Protocol == esp.ProtoUDP && in.DstPort == 9 && len(pkt) == 30 {
					arrived <- seen{i, int(in.SrcPort) - 5000, int(pkt[28])<<8 | int(pkt[29])}
				}
			}
		}()
	}
	ns.do(t, func() error {
		for flow := range flows {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Bind(fd, &unix.SockaddrInet4{Port: 5000 + flow}); err != nil {
				return err
			}
			for i := range each {
				to := &unix.SockaddrInet4{Port: 9, Addr: netip.MustParseAddr("10.7.0.9").As4()}
				if err := unix.Sendto(fd, []byte{byte(i >> 8), byte(i)}, 0, to); err != nil {
					return fmt.Errorf("send: %w", err)
				}
			}
		}
		return nil
	})
	next, home, used := map[int]int{}, map[int]int{}, map[int]bool{}
	for range flows * each {
		select {
		case s := <-arrived:
			if s.number != next[s.flow] {
				t.Fatalf("flow %d: packet %d, want %d", s.flow, s.number, next[s.flow])
			}
			if q, known := home[s.flow]; known && q != s.queue {
				t.Fatalf("flow %d changed from queue %d to %d", s.flow, q, s.queue)
			}
			next[s.flow]++
			home[s.flow] = s.queue
			used[s.queue] = true
		case <-time.After(20 * time.Second):
			t.Fatal("packets are missing")
		}
	}
	if len(used) < 2 {
		t.Error("the kernel has put 20 flows on one queue")
	}
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	for range queues {
		if err := <-ended; !errors.Is(err, os.ErrClosed) {
			t.Errorf("a reader ended with %v", err)
		}
	}
	if err := dev.Queues()[1].Write([][]byte{make([]byte, vnet.HeaderLen), udpPacket("10.7.0.9", "10.7.0.1", 1)}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
}
