// Command ikeload is a crowd of clients in one process, to measure a gateway: it
// connects as often as it is told with the credentials of one profile, so many at a
// time, and says how long that took. Its clients negotiate everything a client does,
// but carry no traffic. It is a tool for benchmarks and is not installed.
//
//	ikeload -clients 1000 alice.toml
//
// The gateway must let one identity have many sessions (auth.unique = "never"), and
// half-open sessions from one address (limits).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/wayfarer-vpn/wayfarer/client"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/internal/config"
)

type options struct {
	profile string
	clients int
	window  int
	id      string
	hold    bool
	verbose bool
}

func main() {
	var o options
	flag.IntVar(&o.clients, "clients", 200, "how many clients connect")
	flag.IntVar(&o.window, "window", 16, "how many are on their way at a time")
	flag.StringVar(&o.id, "id", "", "identities in place of the profile's; %d is the number of the client")
	flag.BoolVar(&o.hold, "hold", false, "keep the sessions until SIGTERM, and leave without a word")
	flag.BoolVar(&o.verbose, "v", false, "say why clients were refused")
	flag.Parse()
	o.profile = flag.Arg(0)
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "ikeload:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	policies, remote, err := load(o)
	if err != nil {
		return err
	}
	level := slog.LevelError
	if o.verbose {
		level = slog.LevelDebug
	}
	c, err := newCrowd(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})))
	if err != nil {
		return err
	}
	defer c.close()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	began, cpu := time.Now(), cpuTime()
	c.connect(ctx, o, policies, remote)
	elapsed := time.Since(began)
	ok := len(c.took)
	if ok == 0 {
		return errors.New("nobody could connect; -v says why")
	}
	slices.Sort(c.took)
	fmt.Printf("ok=%d failed=%d seconds=%.3f rate=%.0f median_ms=%.2f p95_ms=%.2f own_cpu_ms=%.3f\n", ok, c.failed, elapsed.Seconds(),
		float64(ok)/elapsed.Seconds(), ms(c.took[ok/2]), ms(c.took[ok*95/100]), ms(cpuTime()-cpu)/float64(ok))
	if o.hold {
		fmt.Println("ready")
		<-ctx.Done()
		return nil
	}
	c.leave()
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// cpuTime is what this process has used so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// load makes the policy of each client from the profile.
func load(o options) (policies func(i int) *ike.Policy, remote netip.Addr, err error) {
	p, _, err := client.LoadProfile(o.profile, time.Now())
	if err != nil {
		return nil, remote, err
	}
	if remote, err = netip.ParseAddr(p.Server[0]); err != nil {
		return nil, remote, fmt.Errorf("the profile must name the gateway by its address: %w", err)
	}
	problems := &config.Problems{}
	policy, _ := client.Policy(p, time.Now(), "", problems)
	if err := problems.Err(); err != nil {
		return nil, remote, err
	}
	// The crowd stays as it is: nothing that a timer does is to be measured.
	policy.RekeyIKE, policy.RekeyChild, policy.LivenessDelay = 0, 0, 0
	if o.id == "" {
		return func(int) *ike.Policy { return policy }, remote, nil
	}
	return func(i int) *ike.Policy {
		own := *policy
		id, err := auth.ParseIdentity(fmt.Sprintf(o.id, i))
		if err != nil {
			panic(err) // the pattern is ours
		}
		own.Local.ID = id
		return &own
	}, remote, nil
}
