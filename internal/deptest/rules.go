// Package deptest keeps the direction of imports. Arrows point down only: commands
// stand on daemons, daemons on transport and engines, engines on codecs, codecs on
// algorithms (docs/architecture.md). The rules here say who must not know whom, and
// why; its test holds the whole repository against them.
package deptest

import (
	"fmt"
	"slices"
	"strings"
)

// module is the import path of this repository.
const module = "github.com/wayfarer-vpn/wayfarer/"

// Rule limits what the packages that In matches may import. Patterns are paths
// within the module; "x/..." matches x and everything below it.
type Rule struct {
	In     []string
	Except []string // packages that In matches but the rule does not mean
	Only   []string // of our own packages nothing but these and In itself
	Not    []string // none of these, ours or foreign
	// AnyOurs leaves our own packages to Not.
	AnyOurs bool
	Why     string
}

// Rules are the directions of this repository.
var Rules = []Rule{
	{In: []string{"suite/..."}, Why: "algorithms know no messages, peers or time"},
	{In: []string{"locator/..."}, Why: "where a host can be reached does not depend on what signals it"},
	{In: []string{"ike/message/..."}, Only: []string{"suite"}, Why: "a codec knows only bytes and numbers"},
	{In: []string{"hip/message/..."}, Only: []string{"suite"}, Why: "a codec knows only bytes and numbers"},
	{In: []string{"ike/auth/..."}, Only: []string{"suite", "ike/message", "internal/reason"}, Why: "proving an identity needs no IKE SA"},
	{In: []string{"ike/eap/..."}, Only: []string{"suite", "ike/message", "ike/auth", "internal/reason"}, Why: "EAP methods do not know what carries them"},
	{In: []string{"ike/pathmtu"}, Why: "a search through sizes knows neither messages nor sessions"},
	{In: []string{"ike"}, Only: []string{"suite", "ike/...", "esp", "locator", "internal/reason", "internal/ratelimit"}, Why: "the engine is pure; it describes SAs to esp and stands below mobike and the daemons"},
	{In: []string{"mobike/..."}, Only: []string{"suite", "ike/...", "esp", "locator", "internal/reason"}, Why: "MOBIKE plugs into ike from above and drives locator"},
	{In: []string{"hip"}, Only: []string{"suite", "hip/message", "esp", "locator", "internal/reason"}, Why: "HIP and IKE are neighbours that do not know each other"},
	{In: []string{"esp"}, Only: []string{"suite", "locator"}, Why: "ESP does not care how keys were agreed"},
	{In: []string{"esp/tun/...", "esp/xfrm/..."}, Not: []string{"ike/...", "mobike/...", "hip/...", "server/...", "client/...", "pki/..."}, AnyOurs: true,
		Why: "a data path carries SAs, whoever negotiated them"},
	{In: []string{"internal/transport/..."}, Not: []string{"ike/...", "mobike/...", "hip/...", "esp/...", "server/...", "client/...", "pki/..."}, AnyOurs: true,
		Why: "sockets know ports and markers, not what is inside"},
	{In: []string{"internal/reason/...", "internal/atomicfile/...", "internal/spelling/...", "internal/rtnl/..."}, Why: "everybody uses them, so they use nobody"},
	{In: []string{"internal/config/..."}, Only: []string{"internal/spelling", "internal/atomicfile"}, Why: "decoding does not know what is configured"},
	{In: []string{"internal/control/..."}, Only: []string{"internal/reason"}, Why: "the channel does not know what is said on it"},
	{In: []string{"internal/cli/..."}, Only: []string{"internal/reason", "internal/config", "internal/control", "internal/spelling"}, Why: "manners of a command line, of any program"},
	{In: []string{"internal/simnet/..."}, Not: []string{"server/...", "client/...", "esp/tun/...", "internal/transport/...", "net", "os"}, AnyOurs: true,
		Why: "the simulation runs engines, without real sockets or clocks"},
	{In: []string{"internal/..."}, Not: []string{"server/...", "client/...", "cmd/..."}, AnyOurs: true, Why: "what daemons share stands below them"},
	{In: []string{"pki/..."}, Not: []string{"server/...", "client/...", "internal/transport/...", "esp/..."}, AnyOurs: true, Why: "certificates are made without a daemon"},
	{In: []string{"server/..."}, Not: []string{"client/..."}, AnyOurs: true, Why: "a gateway does not contain a laptop"},
	{In: []string{"client/..."}, Not: []string{"server/..."}, AnyOurs: true, Why: "a laptop does not contain a gateway"},
	{In: []string{"cmd/..."}, Only: []string{"server/...", "client/...", "pki/...", "internal/...", "cmd/..."}, Why: "commands are wiring: flags, signals, exit codes"},
	{In: []string{"..."}, Except: []string{"cmd/..."}, Not: []string{"cmd/..."}, AnyOurs: true, Why: "commands are the top"},
	{In: engines, Except: notEngines, Not: impure, AnyOurs: true, Why: "engines do no I/O: packets, events and time come in, actions go out"},
}

// engines are the packages whose only inputs are their arguments.
var (
	engines    = []string{"suite/...", "locator/...", "ike/...", "mobike/...", "hip/...", "mip/...", "esp/..."}
	notEngines = []string{"esp/tun/...", "esp/xfrm/..."}
	impure     = []string{"net", "net/http", "os", "os/exec", "os/signal", "syscall", "crypto/rand", "math/rand", "math/rand/v2",
		"golang.org/x/sys/...", "golang.org/x/net/...", "github.com/vishvananda/...", "internal/transport/...", "internal/netmon/...", "internal/rtnl/..."}
)

// exceptions are imports that a rule forbids and that are right nevertheless.
var exceptions = []struct{ pkg, path, why string }{
	{"ike", "crypto/rand", "the default of Config.Rand, which tests replace"},
	{"ike/auth", "net", "crypto/x509 holds addresses as net.IP"},
}

// clockCalls are the functions of package time that read the clock or wait.
var clockCalls = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}

// Pure says whether a package is an engine, where time is an argument.
func Pure(pkg string) bool { return matchAny(engines, pkg) && !matchAny(notEngines, pkg) }

// Violations lists the rules that a package breaks with its imports.
func Violations(rules []Rule, pkg string, imports []string) []string {
	var found []string
	for _, r := range rules {
		if !matchAny(r.In, pkg) || matchAny(r.Except, pkg) {
			continue
		}
		for _, path := range imports {
			own, ours := strings.CutPrefix(path, module)
			forbidden := matchAny(r.Not, own)
			if ours && !r.AnyOurs && !matchAny(r.Only, own) && !matchAny(r.In, own) {
				forbidden = true
			}
			if forbidden && !excepted(pkg, own) {
				found = append(found, fmt.Sprintf("%s must not import %s: %s", pkg, own, r.Why))
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func excepted(pkg, path string) bool {
	for _, e := range exceptions {
		if e.pkg == pkg && e.path == path {
			return true
		}
	}
	return false
}

// matchAny says whether a path matches one of the patterns.
func matchAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if p == "..." {
			return true
		}
		tree, isTree := strings.CutSuffix(p, "/...")
		return path == p || isTree && (path == tree || strings.HasPrefix(path, tree+"/"))
	})
}
