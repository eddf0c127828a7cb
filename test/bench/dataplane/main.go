// Command dataplane measures what tunnels carry, side by side: Wayfarer,
// wireguard-go, strongSwan in user space, and no tunnel. Every peer has two network
// namespaces of its own, joined by a pair of veth devices with an MTU of 1500; all
// are up at once, and each round measures every one of them, so that drift of the
// machine hits all alike. It needs root, iproute2, iperf3, ethtool and ping.
//
// A measurement waits until other programs are idle, and is repeated when they
// computed meanwhile. Results are added to those in the file of -results: a long
// measurement can be cut into slices, by -only and -peers, with -deadline.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/wayfarer-vpn/wayfarer/test/bench/dataplane/result"
)

type options struct {
	peers, only list
	rounds      int
	duration    time.Duration // of a TCP stream
	trial       time.Duration // of UDP
	steps       int
	loss        float64
	deadline    time.Duration
	patience    time.Duration
	attempts    int

	results string
	fresh   bool
	docs    string
	goBench string
	report  bool
}

// list is a flag of words with commas.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }
func (l *list) Set(s string) error {
	*l = strings.Split(s, ",")
	return nil
}

func parse(args []string) (*options, error) {
	o := &options{
		peers: list{"veth", "wg", "ours", "strongswan", "wg+nic", "ours+nic"},
		only:  list{"tcp", "ping", "load", "udp"},
	}
	f := flag.NewFlagSet("dataplane", flag.ContinueOnError)
	f.Var(&o.peers, "peers", "what to measure: veth, wg, strongswan, ours and its variants ours-aes256, ours-chacha, ours-cbc; +nic for an underlay without UDP segmentation offload")
	f.Var(&o.only, "only", "which measurements: tcp, ping, load (ping beside a TCP stream), udp")
	f.IntVar(&o.rounds, "rounds", 3, "rounds, each of which measures every peer once")
	f.DurationVar(&o.duration, "t", 4*time.Second, "length of a TCP stream")
	f.DurationVar(&o.trial, "trial", 600*time.Millisecond, "length of sending at one rate of UDP")
	f.IntVar(&o.steps, "steps", 7, "rates of UDP that are tried")
	f.Float64Var(&o.loss, "loss", 0.001, "share of UDP packets that may be lost")
	f.DurationVar(&o.deadline, "deadline", time.Hour, "begin no new round after so long")
	f.DurationVar(&o.patience, "patience", time.Minute, "how long to wait for an idle machine before each measurement")
	f.IntVar(&o.attempts, "attempts", 3, "attempts at a measurement that other programs disturb")
	f.StringVar(&o.results, "results", ".cache/bench.json", "file to add the results to")
	f.BoolVar(&o.fresh, "fresh", false, "forget what the file holds")
	f.StringVar(&o.docs, "docs", "", "directory whose performance.md and performance.svg are written")
	f.StringVar(&o.goBench, "gobench", "", "take in a file with the output of \"go test -bench\"")
	f.BoolVar(&o.report, "report", false, "measure nothing, print and write what the file holds")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	for _, kind := range o.only {
		if !slices.ContainsFunc(measurements, func(m measurement) bool { return m.kind == kind }) {
			return nil, fmt.Errorf("there is no measurement %q", kind)
		}
	}
	if min(o.rounds, o.steps, o.attempts) < 1 || o.duration < time.Second {
		return nil, errors.New("at least one round, one step, one attempt and one second are needed")
	}
	return o, nil
}

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err == nil {
		err = o.main(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "dataplane:", err)
		os.Exit(1)
	}
}

func (o *options) main(ctx context.Context) error {
	f, err := result.Load(o.results)
	if err != nil {
		return err
	}
	if o.fresh {
		f = &result.File{}
	}
	if o.goBench != "" {
		if err := takeGoBenchmarks(f, o.goBench); err != nil {
			return err
		}
	}
	if !o.report {
		run, err := o.run(ctx)
		if len(run.Samples) > 0 { // also of a run that was cut short
			f.Runs = append(f.Runs, run)
		}
		if err != nil {
			return errors.Join(err, save(f, o.results))
		}
	}
	if err := save(f, o.results); err != nil {
		return err
	}
	fmt.Print(summary(f))
	if o.docs == "" {
		return nil
	}
	return writeDocs(f, o.docs)
}

func save(f *result.File, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return f.Save(path)
}

func takeGoBenchmarks(f *result.File, path string) error {
	r, err := os.Open(path)
	if err != nil {
		return err
	}
	defer r.Close()
	lines, err := result.GoBenchmarkLines(r)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	f.GoBenchmarks = lines
	return nil
}

// run measures all peers.
func (o *options) run(ctx context.Context) (result.Run, error) {
	run := result.Run{When: time.Now().Truncate(time.Second)}
	l, err := newLab(ctx)
	if err != nil {
		return run, err
	}
	defer os.RemoveAll(l.scratch)
	run.Machine, run.Version = l.machine(ctx), l.version(ctx)
	peers, err := o.start(ctx, l)
	defer func() {
		for _, p := range peers {
			p.down()
		}
	}()
	if err != nil {
		return run, err
	}
	began := time.Now()
	for round := range o.rounds {
		if time.Since(began) > o.deadline {
			say("no time for more than %d rounds", round)
			break
		}
		for _, p := range peers {
			samples, err := o.round(ctx, p)
			if err != nil { // what came before the failure may have suffered from it
				return run, fmt.Errorf("%s, round %d: %w", p.name, round+1, err)
			}
			run.Samples = append(run.Samples, samples...)
			say("round %d, %s:%s", round+1, p.name, brief(samples))
		}
	}
	if slices.Contains(o.only, "tcp") {
		for _, p := range peers {
			run.Samples = append(run.Samples, p.memory()...)
		}
	}
	return run, nil
}

// start brings all peers up that this machine can run.
func (o *options) start(ctx context.Context, l *lab) (peers []*peer, err error) {
	for i, name := range o.peers {
		if err := available(name); err != nil {
			say("%s is left out: %v", name, err)
			continue
		}
		p := l.newPeer(name, i)
		peers = append(peers, p)
		if err := p.up(ctx); err != nil {
			return peers, fmt.Errorf("start %s: %w", name, err)
		}
	}
	return peers, nil
}

// round measures one peer once.
func (o *options) round(ctx context.Context, p *peer) (samples []result.Sample, err error) {
	w := &watcher{share: 0.06, attempts: o.attempts, patience: o.patience, say: say}
	for _, m := range measurements {
		if !slices.Contains(o.only, m.kind) || m.tunnel && kind(p.name) == "veth" {
			continue
		}
		v, foreign, err := quiet(ctx, w, p.processes(), func() (values, error) { return m.measure(ctx, p, o) })
		if err != nil {
			return samples, err
		}
		for _, metric := range result.Metrics { // in their order
			if x, ok := v[metric.Key]; ok {
				samples = append(samples, result.Sample{Peer: p.name, Metric: metric.Key, Value: round4(x), Foreign: round4(foreign)})
			}
		}
	}
	return samples, nil
}

func (p *peer) memory() (samples []result.Sample) {
	if len(p.pids[0])+len(p.pids[1]) == 0 {
		return nil
	}
	return []result.Sample{
		{Peer: p.name, Metric: "rss_server", Value: round4(rss(p.pids[0]))},
		{Peer: p.name, Metric: "rss_client", Value: round4(rss(p.pids[1]))},
	}
}

func newLab(ctx context.Context) (*lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("network namespaces need root")
	}
	for _, tool := range []string{"ip", "iperf3", "ethtool", "ping", "bash"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("%s is not installed", tool)
		}
	}
	out, err := command(ctx, nil, "go", "env", "GOMOD")
	if err != nil {
		return nil, err
	}
	l := &lab{root: filepath.Dir(strings.TrimSpace(string(out))), prefix: fmt.Sprintf("wfb%d", os.Getpid())}
	if l.scratch, err = os.MkdirTemp("", "wayfarer-bench"); err != nil {
		return nil, err
	}
	wgpeer := filepath.Join(l.scratch, "wgpeer")
	if _, err := command(ctx, []string{"CGO_ENABLED=0"}, "go", "build", "-C", l.root, "-o", wgpeer, "./test/bench/wgpeer"); err != nil {
		return nil, errors.Join(err, os.RemoveAll(l.scratch))
	}
	l.env = append(l.env, "WGPEER="+wgpeer)
	if l.bin = os.Getenv("OURS_BIN"); l.bin == "" {
		l.bin = filepath.Join(l.root, "bin")
		if _, err := command(ctx, nil, "make", "-s", "-C", l.root, "build"); err != nil {
			return nil, errors.Join(err, os.RemoveAll(l.scratch))
		}
		l.env = append(l.env, "OURS_BIN="+l.bin)
	}
	return l, nil
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func brief(samples []result.Sample) string {
	var b strings.Builder
	for _, s := range samples {
		fmt.Fprintf(&b, " %s %.4g", s.Metric, s.Value)
	}
	return b.String()
}
