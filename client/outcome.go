package client

import (
	"fmt"
	"slices"
	"strings"

	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
)

// outcomes are how the attempts at the addresses of a gateway have ended. One failure
// is made of them: the one that says most, and in a few words what became of the others.
type outcomes []outcome

type outcome struct {
	candidate
	*failure
	silent bool   // no answer at all
	said   string // what ICMP said instead
}

func (o *outcomes) add(c candidate, f *failure) {
	*o = append(*o, outcome{candidate: c, failure: f})
}

// addSilent notes an address that has not answered, with what ICMP said about it.
func (o *outcomes) addSilent(c candidate, e *transport.PathError) {
	x := outcome{candidate: c, failure: silent([]candidate{c}), silent: true}
	if e != nil {
		x.said = fmt.Sprintf("ICMP from %s says: %s", e.From, e.Kind)
		x.detail += "; " + x.said
		if e.Kind == transport.PortUnreachable {
			x.hint = "The machine is there, but nothing listens on that port. Is it the gateway's address, and does vpn-server run there?"
		}
	}
	*o = append(*o, x)
}

// weight orders failures by how much they say: what a gateway has answered says more
// than silence, and that more than having no way to it.
func (o outcome) weight() int {
	switch {
	case o.code == reason.Cancelled:
		return 0
	case o.code == reason.NoNetwork:
		return 1
	case o.silent:
		return 2
	case o.code.NoAnswer():
		return 3
	}
	return 4
}

// sum makes one failure of all; nil without any.
func (o outcomes) sum() *failure {
	if len(o) == 0 {
		return nil
	}
	best := slices.MaxFunc(o, func(a, b outcome) int { return a.weight() - b.weight() })
	out := *best.failure
	if silentOnes := o.silentOnes(); best.silent && len(silentOnes) > 1 {
		out = *silent(silentOnes)
		out.detail += o.said()
	}
	var others []string
	for _, x := range o {
		if x.failure == best.failure || best.silent && x.silent {
			continue
		}
		others = append(others, fmt.Sprintf("%s: %s", x.addr, x.brief()))
	}
	if len(others) > 0 {
		// The main one has to say which address it is about.
		if !strings.Contains(out.detail, best.addr.String()) {
			out.detail = strings.TrimPrefix(out.detail+" (at "+best.addr.String()+")", " ")
		}
		out.detail += "; " + strings.Join(others, "; ")
	}
	return &out
}

// said is what ICMP said about the silent ones.
func (o outcomes) said() string {
	var out strings.Builder
	for _, x := range o {
		if x.said != "" {
			fmt.Fprintf(&out, "; about %s %s", x.addr, x.said)
		}
	}
	return out.String()
}

func (o outcomes) silentOnes() (out []candidate) {
	for _, x := range o {
		if x.silent {
			out = append(out, x.candidate)
		}
	}
	return out
}

// brief is an outcome in a few words.
func (o outcome) brief() string {
	switch {
	case o.silent:
		return "no answer"
	case o.code == reason.NoNetwork:
		return "no network leads there"
	case o.notify != 0:
		return fmt.Sprintf("%s (%s)", o.code, o.notify)
	}
	return string(o.code)
}

// silent is the failure of a gateway that does not answer at all: the most frequent
// trouble on foreign networks, so it says what to try.
func silent(asked []candidate) *failure {
	names := []string{}
	addrs := []string{}
	for _, c := range asked {
		if !slices.Contains(names, c.server) {
			names = append(names, c.server)
		}
		addrs = append(addrs, c.addr.String())
	}
	where := strings.Join(names, ", ") + " at " + strings.Join(addrs, ", ")
	if slices.Equal(names, addrs) {
		where = strings.Join(addrs, ", ")
	}
	return &failure{
		code:   reason.NoAnswer,
		detail: fmt.Sprintf("no answer from %s, UDP port %d", where, ikePort),
		hint: "Does this network let UDP out on ports 500 and 4500? Guest networks often do not: try another one, a phone's hotspot for instance. " +
			"If it fails everywhere, check the server's address in the profile, and on the gateway that vpn-server runs and its firewall admits UDP 500 and 4500.",
	}
}
