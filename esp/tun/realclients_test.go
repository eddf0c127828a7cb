//go:build linux

package tun

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/internal/transport"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// sink sends trains to a socket on the same machine, one system call each.
type sink struct {
	conn    *net.UDPConn
	carried atomic.Int64 // packets
}

func (s *sink) SendESP(_ locator.Pair, _ bool, trains []transport.Train) error {
	for _, t := range trains {
		s.carried.Add(int64(t.Packets()))
		for data := t.Data; len(data) > 0; {
			n := min(t.Size, len(data))
			if _, err := s.conn.Write(data[:n]); err != nil {
				return err
			}
			data = data[n:]
		}
	}
	return nil
}

func (s *sink) SendKeepalive(locator.Pair) error { return nil }

// BenchmarkRealClients is BenchmarkClients with a real TUN device and a real socket,
// for single packets, its worst case: what a client among many costs more, compared
// with all that a packet costs a gateway that sends it on: the routing to the device,
// reading it, ESP, and sending.
func BenchmarkRealClients(b *testing.B) {
	for _, size := range []int{64, 1372} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			var ends [2]*realGateway
			for i, clients := range []int{1, manyClients} {
				ends[i] = newRealGateway(b, clients, size)
			}
			allocated := countAllocations(b)
			b.ResetTimer()
			var spent [2]int64
			packets := 0
			for packets < b.N {
				for i, g := range ends {
					before := processTime(b)
					g.send(b, 20000)
					spent[i] += processTime(b) - before
				}
				packets += 20000
			}
			allocated(packets)
			b.ReportMetric(0, "ns/op") // of both
			b.ReportMetric(float64(spent[0])/float64(packets), "ns/packet-1")
			b.ReportMetric(float64(spent[1])/float64(packets), fmt.Sprintf("ns/packet-%d", manyClients))
			b.ReportMetric(float64(spent[1])/float64(spent[0]), "ratio")
		})
	}
}

// realGateway is a gateway in a namespace, and a host behind it that sends.
type realGateway struct {
	ns      *namespace
	sink    *sink
	clients int
	payload []byte
	fd      int
	rng     *rand.Rand
}

func newRealGateway(b *testing.B, clients, size int) *realGateway {
	g := &realGateway{ns: newNamespace(b), sink: &sink{}, clients: clients, payload: make([]byte, size), rng: rand.New(rand.NewPCG(1, 2))}
	dp := realSide(b, g.ns, 1420, []string{"192.0.2.80/32"}, []string{"10.1.0.0/16"})
	s := &side{t: b, dp: dp}
	for i := range clients {
		s.addClient(i, algorithms[0])
	}
	g.ns.do(b, func() (err error) {
		if err := configure("lo", nil, nil); err != nil {
			return err
		}
		to, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return err
		}
		b.Cleanup(func() { to.Close() })
		if g.sink.conn, err = net.DialUDP("udp4", nil, to.LocalAddr().(*net.UDPAddr)); err != nil {
			return err
		}
		g.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	b.Cleanup(func() { unix.Close(g.fd); g.sink.conn.Close() })
	dp.SetSender(g.sink)
	return g
}

// send sends packets to clients at random, never more than the device's queue takes.
func (g *realGateway) send(b *testing.B, n int) {
	const window, pause = 200, 50 * time.Microsecond
	done := g.sink.carried.Load()
	to := &unix.SockaddrInet4{Port: 9}
	for i := range n {
		for int64(i)-(g.sink.carried.Load()-done) > window {
			time.Sleep(pause)
		}
		to.Addr = clientAddr(g.rng.IntN(g.clients)).As4()
		if err := unix.Sendto(g.fd, g.payload, 0, to); err != nil {
			b.Fatal(err)
		}
	}
	for g.sink.carried.Load()-done < int64(n) {
		time.Sleep(pause)
	}
}

// processTime is the CPU time of this process.
func processTime(tb testing.TB) int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		tb.Fatal(err)
	}
	return t.Nano()
}
