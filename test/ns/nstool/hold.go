package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// marker stands in everything that hold sends, so that it is found on the wire also
// where addresses have been translated or quoted.
const marker = "INNER PACKET IN CLEAR"

// hold plays the programs of a user that know nothing of the tunnel: UDP and TCP
// sockets bound to an inner address which go on sending whatever happens to the tunnel,
// some of them bound to the device of the uplink.
func hold(ctx context.Context, args []string) error {
	if err := atLeast(2, args); err != nil {
		return err
	}
	src, err := netip.ParseAddr(args[0])
	if err != nil {
		return err
	}
	dst, err := netip.ParseAddr(args[1])
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	for _, device := range append([]string{""}, args[2:]...) {
		for _, network := range []string{"udp", "tcp"} {
			c, err := open(ctx, network, src, dst, device)
			if err != nil {
				// A TCP connection past the tunnel does not come to be; its attempt counts.
				fmt.Printf("%s from %s by %q: %v\n", network, src, device, err)
				continue
			}
			wg.Go(func() { keepSending(ctx, c) })
		}
	}
	fmt.Println("ready")
	wg.Wait()
	return nil
}

func open(ctx context.Context, network string, src, dst netip.Addr, device string) (net.Conn, error) {
	d := net.Dialer{Timeout: 500 * time.Millisecond, Control: func(_, _ string, raw syscall.RawConn) error {
		if device == "" {
			return nil
		}
		var err error
		if ctlErr := raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) }); ctlErr != nil {
			return ctlErr
		}
		return err
	}}
	if network == "udp" {
		d.LocalAddr = &net.UDPAddr{IP: src.AsSlice()}
	} else {
		d.LocalAddr = &net.TCPAddr{IP: src.AsSlice()}
	}
	return d.DialContext(ctx, network, netip.AddrPortFrom(dst, echoPort).String())
}

func keepSending(ctx context.Context, c net.Conn) {
	defer c.Close()
	go func() { // answers, so that TCP goes on
		buf := make([]byte, 4096)
		for ctx.Err() == nil {
			if _, err := c.Read(buf); err != nil {
				time.Sleep(10 * time.Millisecond)
			}
		}
	}()
	for ctx.Err() == nil {
		_ = c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		_, _ = c.Write([]byte(marker))
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}
