package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	probeInterval = 10 * time.Millisecond
	probeGrace    = 50 // so many intervals for answers that are on their way at the end
)

// probe counts what is lost. A packet that cannot even be sent is lost too. SIGUSR1
// marks a moment: back_ms is how long after it the last packet was lost,
// lost_after how many were lost since.
func probe(ctx context.Context, args []string) error {
	args, every, err := interval(args)
	if err != nil {
		return err
	}
	dst, src, err := endpoints(args)
	if err != nil {
		return err
	}
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: localAddr(src)})
	if err != nil {
		return err
	}
	marks := make(chan os.Signal, 1)
	signal.Notify(marks, syscall.SIGUSR1)
	answered, missing := make(chan []bool), atomic.Int64{}
	go func() { answered <- collect(c, &missing) }()
	fmt.Println("ready")
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var sent []time.Time
	var mark time.Time
	for ctx.Err() == nil {
		missing.Add(1)
		_, _ = c.WriteToUDPAddrPort(binary.BigEndian.AppendUint32(nil, uint32(len(sent))), netip.AddrPortFrom(dst, echoPort))
		sent = append(sent, time.Now())
		for waits := true; waits; {
			select {
			case <-marks:
				mark = time.Now()
			case <-ticker.C:
				waits = false
			case <-ctx.Done():
				waits = false
			}
		}
	}
	for end := time.Now().Add(probeGrace * every); missing.Load() > 0 && time.Now().Before(end); {
		time.Sleep(every)
	}
	if err := c.SetReadDeadline(time.Now()); err != nil {
		return err
	}
	fmt.Println(figures(sent, <-answered, mark, every))
	return nil
}

// interval takes every=DURATION off the end of the arguments.
func interval(args []string) ([]string, time.Duration, error) {
	last := len(args) - 1
	if last < 0 || !strings.HasPrefix(args[last], "every=") {
		return args, probeInterval, nil
	}
	every, err := time.ParseDuration(strings.TrimPrefix(args[last], "every="))
	if err != nil || every <= 0 {
		return nil, 0, fmt.Errorf("%q is no interval", args[last])
	}
	return args[:last], every, nil
}

// figures says what was lost of the packets sent at these times, how long the longest
// run of losses was, and when after the mark it was over with them.
func figures(sent []time.Time, answered []bool, mark time.Time, every time.Duration) string {
	lost, after, longest, back := 0, 0, time.Duration(0), time.Duration(0)
	var began time.Time // of the present run
	for i, at := range sent {
		if i < len(answered) && answered[i] {
			began = time.Time{}
			continue
		}
		lost++
		if began.IsZero() {
			began = at
		}
		end := at.Add(every)
		if i+1 < len(sent) {
			end = sent[i+1]
		}
		longest = max(longest, end.Sub(began))
		if !mark.IsZero() && end.After(mark) {
			after, back = after+1, end.Sub(mark)
		}
	}
	return fmt.Sprintf("sent=%d lost=%d gap_ms=%d lost_after=%d back_ms=%d", len(sent), lost, longest.Milliseconds(), after, back.Milliseconds())
}

// collect reads answers until the deadline that comes with the end, and counts down
// what is missing.
func collect(c *net.UDPConn, missing *atomic.Int64) []bool {
	var got []bool
	buf := make([]byte, 64)
	for {
		n, _, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) || isTimeout(err) {
			return got
		}
		if err != nil || n != 4 {
			continue // an ICMP error: the path is down at the moment
		}
		i := int(binary.BigEndian.Uint32(buf))
		for len(got) <= i && i < 1<<20 {
			got = append(got, false)
		}
		if i < len(got) && !got[i] {
			got[i] = true
			missing.Add(-1)
		}
	}
}
