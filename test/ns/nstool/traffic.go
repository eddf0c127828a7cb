package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

const (
	echoPort = 7000
	filePort = 8080
)

// serve answers everything that the other subcommands ask.
func serve(ctx context.Context, _ []string) error {
	udp, err := net.ListenUDP("udp", &net.UDPAddr{Port: echoPort})
	if err != nil {
		return err
	}
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{Port: echoPort})
	if err != nil {
		return err
	}
	files, err := net.Listen("tcp", fmt.Sprintf(":%d", filePort))
	if err != nil {
		return err
	}
	go echoUDP(udp)
	go echoTCP(tcp)
	go http.Serve(files, http.HandlerFunc(serveFile)) //nolint:errcheck // ends with the process
	fmt.Println("ready")
	<-ctx.Done()
	return nil
}

func echoUDP(c *net.UDPConn) {
	buf := make([]byte, 65536)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		// A socket of both families answers an IPv4 client at its plain address.
		_, _ = c.WriteToUDPAddrPort(buf[:n], from)
	}
}

func echoTCP(l *net.TCPListener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}

// serveFile sends as many octets as ?size= asks for; /source tells who asks.
func serveFile(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/source" {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprint(w, host)
		return
	}
	size, err := strconv.ParseInt(r.URL.Query().Get("size"), 10, 64)
	if err != nil || size < 0 {
		http.Error(w, "size is missing", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	block := make([]byte, 1<<16)
	for size > 0 {
		n := min(int64(len(block)), size)
		if _, err := w.Write(block[:n]); err != nil {
			return
		}
		size -= n
	}
}

// endpoints reads "DST [SRC]".
func endpoints(args []string) (dst, src netip.Addr, err error) {
	if err = atLeast(1, args); err != nil {
		return dst, src, err
	}
	if dst, err = netip.ParseAddr(args[0]); err != nil {
		return dst, src, err
	}
	if len(args) > 1 {
		src, err = netip.ParseAddr(args[1])
	}
	return dst, src, err
}

func localAddr(src netip.Addr) net.IP {
	if !src.IsValid() {
		return nil
	}
	return src.AsSlice()
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// stream keeps one TCP connection busy and says whether it survived, and how long the
// slowest record took there and back.
func stream(ctx context.Context, args []string) error {
	size := 1000
	if n := len(args) - 1; n > 0 && strings.HasPrefix(args[n], "size=") {
		var err error
		if size, err = strconv.Atoi(strings.TrimPrefix(args[n], "size=")); err != nil || size < 1 {
			return fmt.Errorf("%q is no size", args[n])
		}
		args = args[:n]
	}
	dst, src, err := endpoints(args)
	if err != nil {
		return err
	}
	d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: localAddr(src)}}
	c, err := d.Dial("tcp", netip.AddrPortFrom(dst, echoPort).String())
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Println("ready")
	record := make([]byte, size)
	slowest := time.Duration(0)
	for n := 0; ; n++ {
		began := time.Now()
		if err := echoOnce(c, record, byte(n)); err != nil {
			fmt.Printf("tcp=broken records=%d slowest_ms=%d (%v)\n", n, slowest.Milliseconds(), err)
			return nil
		}
		slowest = max(slowest, time.Since(began))
		select {
		case <-ctx.Done():
			fmt.Printf("tcp=ok records=%d slowest_ms=%d\n", n+1, slowest.Milliseconds())
			return nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func echoOnce(c net.Conn, record []byte, mark byte) error {
	for i := range record {
		record[i] = mark
	}
	if err := c.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		return err
	}
	if _, err := c.Write(record); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, record); err != nil {
		return err
	}
	if record[0] != mark || record[len(record)-1] != mark {
		return errors.New("other octets came back")
	}
	return nil
}

// fetch downloads and says how fast. It ends early, with its figures, when interrupted.
func fetch(ctx context.Context, args []string) error {
	if err := atLeast(1, args); err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, args[0], nil)
	if err != nil {
		return err
	}
	began := time.Now()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	n, err := io.Copy(io.Discard, response.Body)
	took := time.Since(began).Seconds()
	fmt.Printf("octets=%d seconds=%.2f mbit=%.0f\n", n, took, float64(n)*8/1e6/took)
	if err == nil && n != response.ContentLength {
		err = fmt.Errorf("%d of %d octets came", n, response.ContentLength)
	}
	return err
}

// source asks a server which address it sees.
func source(ctx context.Context, args []string) error {
	dst, _, err := endpoints(args)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/source", netip.AddrPortFrom(dst, filePort)), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 100))
	fmt.Println(string(text))
	return err
}
