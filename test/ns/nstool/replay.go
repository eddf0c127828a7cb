package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// record writes the packets of tunnels to a file, each behind its length.
func record(ctx context.Context, args []string) error {
	if err := atLeast(2, args); err != nil {
		return err
	}
	t, err := openTap(args[0])
	if err != nil {
		return err
	}
	f, err := os.Create(args[1])
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	fmt.Println("ready")
	n, inits := 0, 0
	err = t.each(ctx, func(p []byte) {
		if _, _, ok := addresses(p); !ok || !isTunnel(p) {
			return
		}
		n++
		if isInitRequest(p) {
			inits++
		}
		_ = binary.Write(w, binary.BigEndian, uint32(len(p)))
		_, _ = w.Write(p)
	})
	fmt.Printf("packets=%d inits=%d\n", n, inits)
	return errors.Join(err, w.Flush(), f.Close())
}

// isInitRequest tells an IKE_SA_INIT request, which has no responder SPI yet.
func isInitRequest(p []byte) bool {
	const header, exchangeAt, initiate = 28, 18, 34
	protocol, rest := upper(p)
	return protocol == unix.IPPROTO_UDP && len(rest) >= 8+header && binary.BigEndian.Uint16(rest[2:]) == ikePort &&
		binary.BigEndian.Uint64(rest[16:]) == 0 && rest[8+exchangeAt] == initiate
}

// replay sends the recorded packets for one destination again, at full speed.
func replay(_ context.Context, args []string) error {
	if err := atLeast(2, args); err != nil {
		return err
	}
	dst, err := netip.ParseAddr(args[1])
	if err != nil {
		return err
	}
	var from netip.Addr
	if len(args) > 2 {
		text, ok := strings.CutPrefix(args[2], "from=")
		if !ok {
			return fmt.Errorf("%q is not from=ADDRESS", args[2])
		}
		if from, err = netip.ParseAddr(text); err != nil {
			return err
		}
	}
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	i, err := newInjector()
	if err != nil {
		return err
	}
	n, err := resend(bufio.NewReader(f), i, dst, from)
	fmt.Printf("packets=%d\n", n)
	return err
}

func resend(r io.Reader, i *injector, dst, from netip.Addr) (n int, err error) {
	for {
		var size uint32
		if err := binary.Read(r, binary.BigEndian, &size); err != nil {
			if errors.Is(err, io.EOF) {
				return n, nil
			}
			return n, err
		}
		p := make([]byte, size)
		if _, err := io.ReadFull(r, p); err != nil {
			return n, err
		}
		src, d, _ := addresses(p)
		if d != dst {
			continue
		}
		if from.IsValid() {
			src = from
		}
		protocol, rest := upper(p)
		// Made anew: the capture may hold checksums that a device was to fill in.
		if err := i.send(ip(src, d, protocol, rest)); err != nil {
			return n, err
		}
		if n++; n%64 == 0 {
			time.Sleep(time.Millisecond) // let the receiver's buffer empty: it is to see all
		}
	}
}
