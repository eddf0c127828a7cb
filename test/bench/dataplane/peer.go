package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Outer addresses of both ends.
const (
	serverOuter = "192.168.77.1"
	clientOuter = "192.168.77.2"
)

// lab is what all peers share.
type lab struct {
	root    string // of the repository
	bin     string // the directory of our programs
	scratch string
	prefix  string // of the names of namespaces
	env     []string
}

// peer is one tunnel between two network namespaces of its own, joined by a pair of
// veth devices. The files of shell functions in test/bench start and describe it.
type peer struct {
	lab            *lab
	name           string // such as ours-chacha+nic
	dir            string
	server, client string // namespaces
	inner          netip.Addr
	pids           [2][]int // server and client
	iperf          *exec.Cmd
}

// variant is the name without the underlay; kind without the variant.
func variant(name string) string { v, _, _ := strings.Cut(name, "+"); return v }
func kind(name string) string    { k, _, _ := strings.Cut(variant(name), "-"); return k }

// available says why a peer cannot be measured here, if it cannot.
func available(name string) error {
	if kind(name) == "strongswan" {
		charon := os.Getenv("CHARON")
		if charon == "" {
			charon = "/usr/lib/ipsec/charon"
		}
		if _, err := os.Stat(charon); err != nil {
			return fmt.Errorf("strongSwan is not installed (%s)", charon)
		}
	}
	switch kind(name) {
	case "ours", "wg", "veth", "strongswan":
	default:
		return fmt.Errorf("there is no peer %q", kind(name))
	}
	if _, underlay, ok := strings.Cut(name, "+"); ok && underlay != "nic" {
		return fmt.Errorf("there is no underlay %q", underlay)
	}
	return nil
}

func (l *lab) newPeer(name string, i int) *peer {
	p := &peer{lab: l, name: name, dir: filepath.Join(l.scratch, name)}
	p.server, p.client = fmt.Sprintf("%s-%d-s", l.prefix, i), fmt.Sprintf("%s-%d-c", l.prefix, i)
	return p
}

// up makes the namespaces and starts both ends.
func (p *peer) up(ctx context.Context) error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	if err := p.join(ctx); err != nil {
		return err
	}
	for _, step := range []string{"server " + p.server, "client " + p.client} {
		end, ns, _ := strings.Cut(step, " ")
		if _, err := p.function(ctx, end, ns, p.dir); err != nil {
			return err
		}
	}
	inner, err := p.function(ctx, "inner")
	if err != nil {
		return err
	}
	if p.inner, err = netip.ParseAddr(strings.TrimSpace(inner)); err != nil {
		return fmt.Errorf("inner address of %s: %w", p.name, err)
	}
	for i, end := range []string{"server", "client"} {
		if p.pids[i], err = readPIDs(filepath.Join(p.dir, end+".pids")); err != nil {
			return err
		}
	}
	p.iperf = exec.Command("ip", "netns", "exec", p.server, "iperf3", "-s")
	if err := p.iperf.Start(); err != nil {
		return err
	}
	_, err = p.inClient(ctx, "ping", "-q", "-n", "-c", "20", "-i", "0.01", p.inner.String())
	return err
}

// join makes the namespaces and the network between them. With the underlay "nic"
// it behaves as a network card without segmentation offload for UDP: the kernel cuts
// trains in software, and the other side joins them again by GRO.
func (p *peer) join(ctx context.Context) error {
	steps := []string{
		"ip netns add " + p.server, "ip netns add " + p.client,
		"ip -n " + p.server + " link set lo up", "ip -n " + p.client + " link set lo up",
		"ip link add e0 netns " + p.server + " mtu 1500 type veth peer name e0 netns " + p.client + " mtu 1500",
		"ip -n " + p.server + " addr add " + serverOuter + "/24 dev e0", "ip -n " + p.client + " addr add " + clientOuter + "/24 dev e0",
		"ip -n " + p.server + " link set e0 up", "ip -n " + p.client + " link set e0 up",
	}
	if strings.HasSuffix(p.name, "+nic") {
		for _, ns := range []string{p.server, p.client} {
			steps = append(steps, "ip netns exec "+ns+" ethtool -K e0 tx-udp-segmentation off tso off gro on")
		}
	}
	for _, s := range steps {
		if _, err := command(ctx, nil, strings.Fields(s)...); err != nil {
			return err
		}
	}
	return nil
}

// function calls a shell function of the peer. Programs it leaves running keep the
// files it writes to, so these are no pipes.
func (p *peer) function(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	out, err := os.OpenFile(filepath.Join(p.lab.scratch, p.name+"."+name), os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return "", err
	}
	defer out.Close()
	script := `. "$1/test/bench/peer.sh"; . "$1/test/bench/others.sh"; shift; "$@"`
	c := exec.CommandContext(ctx, "bash", append([]string{"-uc", script, "bash", p.lab.root, kind(p.name) + "_" + name}, args...)...)
	c.Env = append(append(os.Environ(), p.lab.env...), "NAME="+variant(p.name), "SRV_OUT="+serverOuter, "CLI_OUT="+clientOuter)
	c.Stdout, c.Stderr = out, out
	err = c.Run()
	text, _ := os.ReadFile(out.Name())
	if err != nil {
		return "", fmt.Errorf("%s of %s: %w; see %s; it said: %s", name, p.name, err, p.dir, bytes.TrimSpace(text))
	}
	return string(text), nil
}

func (p *peer) inClient(ctx context.Context, args ...string) ([]byte, error) {
	return command(ctx, nil, append([]string{"ip", "netns", "exec", p.client}, args...)...)
}

// processes are all whose CPU time belongs to a measurement.
func (p *peer) processes() []int {
	all := slices.Concat(p.pids[0], p.pids[1])
	if p.iperf != nil && p.iperf.Process != nil {
		all = append(all, p.iperf.Process.Pid)
	}
	return all
}

// down ends what was started and removes the namespaces.
func (p *peer) down() {
	if p.iperf != nil && p.iperf.Process != nil {
		_ = p.iperf.Process.Kill()
		_ = p.iperf.Wait()
	}
	for _, end := range []string{"client", "server"} {
		pids, _ := readPIDs(filepath.Join(p.dir, end+".pids"))
		endProcesses(pids)
	}
	for _, ns := range []string{p.server, p.client} {
		_, _ = command(context.Background(), nil, "ip", "netns", "del", ns)
	}
}

// endProcesses asks processes to end, and makes them after three seconds.
func endProcesses(pids []int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	for _, pid := range pids {
		for range 60 {
			if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

func readPIDs(path string) ([]int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, f := range strings.Fields(string(data)) {
		pid, err := strconv.Atoi(f)
		if err != nil || pid <= 1 {
			return nil, fmt.Errorf("%s: %q is no process", path, f)
		}
		out = append(out, pid)
	}
	return out, nil
}

// command runs a program and returns what it writes.
func command(ctx context.Context, env []string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Env = append(os.Environ(), env...)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(append(stderr.Bytes(), stdout.Bytes()...)))
	}
	return stdout.Bytes(), nil
}
