// Package datapath chooses how a daemon carries ESP, and makes that data path: in the
// kernel (esp/xfrm) or in this process (esp/tun).
package datapath

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/esp/tun"
	"github.com/wayfarer-vpn/wayfarer/esp/xfrm"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// Mode is what the configuration asks for.
type Mode string

// Modes.
const (
	// Auto takes the kernel's path where it can do all that sessions may need, and the
	// userspace path otherwise.
	Auto Mode = "auto"
	Tun  Mode = "tun"
	// XFRM takes the kernel's path or fails.
	XFRM Mode = "xfrm"
)

// ParseMode reads a mode.
func ParseMode(s string) (Mode, error) {
	m := Mode(s)
	if !slices.Contains([]Mode{Auto, Tun, XFRM}, m) {
		return "", fmt.Errorf(`%.40q is none of "auto", "tun" and "xfrm"`, s)
	}
	return m, nil
}

// Sender sends what a data path wants sent.
type Sender = tun.Sender

// Config says what data path is wanted.
type Config struct {
	Mode  Mode
	Owner xfrm.Owner
	// Name and MTU are the interface's; zero for the default MTU.
	Name string
	MTU  int
	// TFC makes all packets of a path equally long where the peer takes that.
	TFC bool
	// DSCP is what packets outside get.
	DSCP esp.DSCP
	// Queues is how many processors the userspace path uses, zero for one.
	Queues int
	// Mark is on packets that the kernel seals, so that they are kept out of the tunnel.
	Mark uint32
	// Proposals are what Child SAs may be negotiated with.
	Proposals []suite.ESPProposal
	Events    func(esp.Event)
	Log       *slog.Logger
}

// Choice is which data path runs, and why.
type Choice struct {
	Kind Mode   `json:"kind"` // tun or xfrm
	Why  string `json:"why"`
	// Code is set when the other one would have been preferred.
	Code reason.Code `json:"code,omitempty"`
	// PolicyBased says that the kernel's path does without an XFRM interface.
	PolicyBased bool `json:"policy_based,omitempty"`
}

// Kernel says whether ESP is the kernel's affair.
func (c Choice) Kernel() bool { return c.Kind == XFRM }

// Path is a data path with its interface.
type Path interface {
	esp.DataPath
	// SetSender says where packets go; until then they are dropped.
	SetSender(Sender)
	// HandleESP takes what the sockets receive.
	HandleESP([]transport.ESPTrain)
	// Name and MTU are the interface's.
	Name() (string, error)
	MTU() int
	// Done is closed when the interface is gone; Err says why.
	Done() <-chan struct{}
	Err() error
}

type tunPath struct{ *tun.DataPath }

func (p tunPath) SetSender(s Sender) { p.DataPath.SetSender(s) }

type xfrmPath struct{ *xfrm.DataPath }

func (p xfrmPath) SetSender(s Sender) { p.DataPath.SetSender(s) }

// Clean removes what a run of the owner that ended by a crash has left in the kernel,
// whichever data path is to come: an XFRM interface does not end with its process as a
// TUN device does.
func Clean(o xfrm.Owner, log *slog.Logger) {
	if err := xfrm.Sweep(o); err != nil && !errors.Is(err, xfrm.ErrInUse) {
		log.Warn("what an earlier run has left in the kernel's IPsec is not fully removed", "error", err)
	}
}

// Open chooses a data path and makes it.
func Open(cfg Config) (Path, Choice, error) {
	choice, err := choose(cfg, xfrm.Probe)
	if err != nil {
		return nil, Choice{}, err
	}
	if choice.Kernel() {
		p, err := openKernel(cfg, choice)
		if err == nil || cfg.Mode == XFRM {
			return p, choice, demanded(err)
		}
		choice = fallBack(err)
	}
	p, err := tun.New(tun.Config{Name: cfg.Name, MTU: cfg.MTU, Queues: cfg.Queues, DSCP: cfg.DSCP, TFC: cfg.TFC, Events: cfg.Events, Log: cfg.Log})
	if err != nil {
		return nil, Choice{}, err
	}
	cfg.Log.Info("data path", "kind", choice.Kind, "why", choice.Why)
	return tunPath{p}, choice, nil
}

func openKernel(cfg Config, choice Choice) (Path, error) {
	p, err := xfrm.New(xfrm.Config{
		Owner: cfg.Owner, Name: cfg.Name, MTU: cfg.MTU, CopyDSCP: cfg.DSCP == esp.CopyDSCP, TFC: cfg.TFC, PolicyBased: choice.PolicyBased, Mark: cfg.Mark,
		Events: cfg.Events, Log: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	cfg.Log.Info("data path", "kind", choice.Kind, "why", choice.Why, "policy_based", choice.PolicyBased)
	return xfrmPath{p}, nil
}

// errFixedDSCP is why the kernel's path is out of the question.
var errFixedDSCP = errors.New("the kernel's ESP clears or copies the DSCP, and cannot give all packets the same")

// choose decides by what the kernel can do.
func choose(cfg Config, probe func(xfrm.Owner, []suite.ESPProposal) error) (Choice, error) {
	if cfg.DSCP != 0 && cfg.DSCP != esp.CopyDSCP && cfg.Mode != Tun {
		if cfg.Mode == XFRM {
			return Choice{}, demanded(errFixedDSCP)
		}
		return fallBack(errFixedDSCP), nil
	}
	switch cfg.Mode {
	case Tun:
		return Choice{Kind: Tun, Why: "asked for by the configuration"}, nil
	case XFRM:
		err := probe(cfg.Owner, cfg.Proposals)
		if errors.Is(err, xfrm.ErrNoInterface) {
			return Choice{Kind: XFRM, PolicyBased: true, Why: "asked for by the configuration; this kernel does it without an XFRM interface"}, nil
		}
		return Choice{Kind: XFRM, Why: "asked for by the configuration"}, demanded(err)
	}
	// A later configuration may allow other algorithms, so all are asked for.
	err := probe(cfg.Owner, append(suite.DefaultESPProposals(), suite.CompatESPProposals()...))
	switch {
	case err == nil:
		return Choice{Kind: XFRM, Why: "the kernel has all that sessions may need"}, nil
	case errors.Is(err, xfrm.ErrNoInterface):
		// It would work, but packets would come and go by the uplinks' interfaces:
		// firewall rules that name the tunnel's would not see them.
		return fallBack(err), nil
	}
	return fallBack(err), nil
}

func fallBack(err error) Choice {
	return Choice{Kind: Tun, Why: err.Error(), Code: reason.KernelPathUnavailable}
}

// demanded explains that the kernel's path is impossible although it was asked for.
func demanded(err error) error {
	if err == nil {
		return nil
	}
	return reason.New(reason.KernelPathUnavailable, `%v. The configuration demands the kernel's data path; datapath = "auto" or "tun" does without`, err)
}
