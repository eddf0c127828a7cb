package guard

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// socketLists are the kernel's lists of sockets. They are older than the netlink
// interface for it, and complete also where that was built for TCP alone.
var socketLists = []string{
	"tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6",
}

// procNet is where they are, for the network namespace of this process.
const procNet = "/proc/self/net/"

// InUse returns those of the addresses that are the local address of a socket that
// may send. When that cannot be found out, it returns all of them with the error.
func InUse(addrs []netip.Addr) ([]netip.Addr, error) {
	var used []netip.Addr
	for _, name := range socketLists {
		err := scanList(procNet+name, strings.HasPrefix(name, "tcp"), func(a netip.Addr) {
			if slices.Contains(addrs, a) && !slices.Contains(used, a) {
				used = append(used, a)
			}
		})
		if errors.Is(err, fs.ErrNotExist) {
			continue // the kernel lacks the protocol or the family
		}
		if err != nil {
			return addrs, fmt.Errorf("list sockets: %w", err)
		}
	}
	// Sockets that are bound and not yet connected stand in none of these lists;
	// newer kernels tell of them through netlink.
	bound, err := connections(addrs)
	for _, c := range bound {
		if a := c.source(); !slices.Contains(used, a) {
			used = append(used, a)
		}
	}
	if err != nil {
		return addrs, err
	}
	return used, nil
}

func scanList(path string, tcp bool, found func(netip.Addr)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return scanSockets(f, tcp, found)
}

// scanSockets reads lines such as
//
//	0: 0100007F:1F90 00000000:0000 0A ...
//
// with the number of the line, local and remote address with port, and the state.
func scanSockets(r io.Reader, tcp bool, found func(netip.Addr)) error {
	lines := bufio.NewScanner(r)
	lines.Scan() // the heading
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 {
			continue
		}
		state, err := strconv.ParseUint(fields[3], 16, 8)
		if err != nil {
			return fmt.Errorf("unexpected line %q", lines.Text())
		}
		if tcp && statesSending&(1<<state) == 0 {
			continue
		}
		a, err := localAddress(fields[1])
		if err != nil {
			return err
		}
		found(a)
	}
	return lines.Err()
}

// localAddress reads an address as the kernel prints it: 32-bit words in the order
// of this machine, in hexadecimal, then a colon and the port.
func localAddress(s string) (netip.Addr, error) {
	digits, _, ok := strings.Cut(s, ":")
	if !ok || len(digits) != 8 && len(digits) != 32 {
		return netip.Addr{}, fmt.Errorf("unexpected address %q", s)
	}
	var b []byte
	for ; digits != ""; digits = digits[8:] {
		word, err := strconv.ParseUint(digits[:8], 16, 32)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("unexpected address %q", s)
		}
		b = binary.NativeEndian.AppendUint32(b, uint32(word))
	}
	a, _ := netip.AddrFromSlice(b)
	return a.Unmap(), nil
}
