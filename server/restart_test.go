package server

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/wayfarer-vpn/wayfarer/internal/datapath"
	"github.com/wayfarer-vpn/wayfarer/internal/saconfig"
)

// reloadable are the keys that a reload puts in force. Whoever adds a key says here that
// it is one of them, or in needsRestart that it is not.
var reloadable = strings.Fields(`
	name id addresses
	auth.methods auth.remote_id auth.certificate auth.key auth.chain auth.ca auth.crl auth.require_crl auth.send_certificate auth.unique
	psk
	network.pool4 network.pool6 network.gateway network.networks network.dns network.domains network.masquerade
	tunnel.mtu tunnel.path_mtu tunnel.nat_traversal tunnel.replay_window tunnel.fragmentation tunnel.mobike tunnel.childless
	roaming.return_routability roaming.probe_burst roaming.probes_per_second roaming.unproven_burst roaming.unproven_per_minute
	crypto.ike crypto.esp
	timers.rekey_ike timers.rekey_child timers.jitter timers.dpd_delay timers.dpd_timeout timers.away_timeout timers.rekey_bytes timers.rekey_packets
	limits.cookie_threshold limits.half_open limits.half_open_per_address limits.half_open_timeout limits.sessions limits.sessions_per_identity
	log.level
`)

func TestEveryKeyIsReloadedOrNeedsARestart(t *testing.T) {
	started := &Settings{Config: NewConfig()}
	userspace := datapath.Choice{Kind: datapath.Tun}
	eachKey(reflect.ValueOf(started.Config).Elem(), "", func(key string, index []int) {
		next := &Settings{Config: NewConfig()}
		v := reflect.ValueOf(next.Config).Elem().FieldByIndex(index)
		change(t, key, v)
		got := next.needsRestart(started, userspace)
		if slices.Contains(reloadable, key) {
			if len(got) != 0 {
				t.Errorf("%s is reloaded, and needs a restart: %q", key, got)
			}
		} else if len(got) != 1 || got[0] != key {
			t.Errorf("a change of %s is not told of: needs a restart: %q", key, got)
		}
	})
}

// eachKey calls f for every key of a configuration with the place of its field.
func eachKey(v reflect.Value, prefix string, f func(key string, index []int)) {
	var walk func(t reflect.Type, prefix string, index []int)
	walk = func(t reflect.Type, prefix string, index []int) {
		for i := range t.NumField() {
			field := t.Field(i)
			key := prefix + field.Tag.Get("toml")
			at := append(slices.Clone(index), i)
			if field.Type.Kind() == reflect.Struct && (strings.HasSuffix(field.Type.Name(), "Config") || field.Type == reflect.TypeFor[saconfig.Timers]()) {
				walk(field.Type, key+".", at)
				continue
			}
			f(key, at)
		}
	}
	walk(v.Type(), prefix, nil)
}

// change gives a field another value than it has.
func change(t *testing.T, key string, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 60)
	case reflect.Uint8, reflect.Uint16, reflect.Uint64:
		v.SetUint(v.Uint() + 60)
	case reflect.Float64:
		v.SetFloat(v.Float() + 0.25)
	case reflect.Slice:
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
	default:
		if v.Type() != reflect.TypeFor[netip.Prefix]() {
			t.Fatalf("%s has a type that this test does not know: %s", key, v.Type())
		}
		v.Set(reflect.ValueOf(netip.MustParsePrefix("10.99.0.0/24")))
	}
}

// The MTU of the tunnel cannot always be changed.
func TestMTUNeedsARestart(t *testing.T) {
	for name, tt := range map[string]struct {
		mtu    int
		manage bool
		kind   datapath.Mode
		want   bool
	}{
		"set by us":        {1300, true, datapath.Tun, false},
		"to the default":   {0, true, datapath.Tun, true},
		"not our affair":   {1300, false, datapath.Tun, true},
		"kernel":           {1300, true, datapath.XFRM, true},
		"kernel unchanged": {1400, true, datapath.XFRM, false},
	} {
		started, next := &Settings{Config: NewConfig()}, &Settings{Config: NewConfig()}
		started.Config.Tunnel.MTU, started.Config.Network.Manage = 1400, tt.manage
		next.Config.Tunnel.MTU, next.Config.Network.Manage = tt.mtu, tt.manage
		if got := next.needsRestart(started, datapath.Choice{Kind: tt.kind}); slices.Contains(got, "tunnel.mtu") != tt.want {
			t.Errorf("%s: needs a restart: %q", name, got)
		}
	}
}

// What waits for a restart is told at every reload, and not any more once it is as it was.
func TestNeedsRestartComparesWithTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t, pskConfig, nil).start(1)
		for _, step := range []struct{ old, new, want string }{
			{"[timers]\n", "[tunnel]\nqueues = 60\n[timers]\n", "tunnel.queues"},
			{"jitter = 0.0", "jitter = 0.1", "tunnel.queues"},
			{"queues = 60\n", "", ""},
		} {
			g.edit(step.old, step.new)
			if got, err := g.Reload(t.Context()); err != nil || strings.Join(got, " ") != step.want {
				t.Errorf("after %q: %q, %v, want %q", step.new, got, err, step.want)
			}
		}
		g.stop()
	})
}
