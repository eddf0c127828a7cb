package client

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/internal/profile"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// Addresses of a gateway with both families; by RFC 8305 they are asked in this order.
const (
	six1, four1, six2, four2 = "2001:db8::7", "192.0.2.7", "2001:db8::8", "192.0.2.8"
	name                     = "vpn.example.test"
)

// racing connects to the given entries of a profile; name has four addresses.
func (w *world) racing(t *testing.T, lines string, timeout time.Duration, servers ...string) *connection {
	t.Helper()
	if w.names[name] == nil {
		for _, a := range []string{four1, four2, six1, six2} {
			w.names[name] = append(w.names[name], netip.MustParseAddr(a))
		}
	}
	p := testProfile(t, lines)
	p.Server = profile.List(servers)
	policy, _ := Policy(p, time.Now(), "", &config.Problems{})
	return startConnection(t.Context(), connectionConfig{
		generation: 1, profile: p, policy: policy, timeout: timeout, newStack: w.newStack, machine: w, resolver: w.resolver(),
		random: func() float64 { return 0.5 }, log: discard, changed: func() {},
	})
}

// answersLate lets a client in, but the first answer takes a while.
func answersLate(d time.Duration) answer {
	return func(s *fakeStack, id ike.SessionID) {
		time.AfterFunc(d, func() { accepts("0.0.0.0/0")(s, id) })
	}
}

// stalls answers the first message, then no more.
func stalls(s *fakeStack, id ike.SessionID) {
	time.AfterFunc(50*time.Millisecond, func() { s.answered(id) })
}

// TestRace: who is asked when, and who wins.
func TestRace(t *testing.T) {
	for _, tt := range []struct {
		what   string
		set    func(w *world)
		list   []string
		within time.Duration
		winner string
		asked  string
	}{
		{"the first answers: nobody else is bothered", func(w *world) { w.set(six1, accepts("0.0.0.0/0")) },
			nil, 60 * time.Millisecond, six1, six1},
		{"a dead address", func(w *world) { w.set(four1, accepts("0.0.0.0/0")) },
			nil, 310 * time.Millisecond, four1, six1 + " " + four1},
		{"a family without a way", func(w *world) {
			w.noWay[netip.MustParseAddr(six1)], w.noWay[netip.MustParseAddr(six2)] = true, true
			w.set(four1, accepts("0.0.0.0/0"))
		}, nil, 60 * time.Millisecond, four1, four1},
		{"a refusal hurries the next", func(w *world) {
			w.set(six1, refuses(reason.NoProposalChosen, message.NoProposalChosen))
			w.set(four1, accepts("0.0.0.0/0"))
		}, nil, 110 * time.Millisecond, four1, six1 + " " + four1},
		{"a slow one wins all the same", func(w *world) { w.set(six1, answersLate(600*time.Millisecond)) },
			nil, 660 * time.Millisecond, six1, six1 + " " + four1 + " " + six2},
		{"both answer at once", func(w *world) {
			w.set(six1, answersLate(attemptDelay))
			w.set(four1, accepts("0.0.0.0/0"))
		}, nil, 310 * time.Millisecond, "", six1 + " " + four1},
		{"IPv6 is not to be found", func(w *world) {
			w.slow["ip6 "+name] = time.Hour
			w.set(four1, accepts("0.0.0.0/0"))
		}, nil, resolutionDelay + 60*time.Millisecond, four1, four1},
		{"IPv4 is not to be found", func(w *world) {
			w.slow["ip4 "+name] = time.Hour
			w.set(six1, accepts("0.0.0.0/0"))
		}, nil, 60 * time.Millisecond, six1, six1},
		{"IPv6 is found a little later", func(w *world) {
			w.slow["ip6 "+name] = resolutionDelay / 2
			w.set(six1, accepts("0.0.0.0/0"))
		}, nil, 90 * time.Millisecond, six1, six1},
		{"DNS is dead, but the address is known from before", func(w *world) {
			w.slow["ip6 "+name], w.slow["ip4 "+name] = time.Hour, time.Hour
			w.memory.learn(name, []netip.Addr{netip.MustParseAddr(four2)})
			w.set(four2, accepts("0.0.0.0/0"))
		}, nil, attemptDelay + 60*time.Millisecond, four2, four2},
		{"DNS is dead, but the profile has an address", func(w *world) {
			w.slow["ip6 "+name], w.slow["ip4 "+name] = time.Hour, time.Hour
			w.set(gateway, accepts("0.0.0.0/0"))
		}, []string{name, gateway}, attemptDelay + 60*time.Millisecond, gateway, gateway},
		{"what worked the last time comes first", func(w *world) {
			w.memory.connected(candidate{name, netip.MustParseAddr(four2)})
			w.set(six1, accepts("0.0.0.0/0"))
			w.set(four2, accepts("0.0.0.0/0"))
		}, nil, 60 * time.Millisecond, four2, four2},
		{"the winner stalls in IKE_AUTH", func(w *world) {
			w.set(six1, stalls)
			w.set(four1, accepts("0.0.0.0/0"))
		}, nil, authPatience + 400*time.Millisecond, four1, six1 + " " + four1},
		{"another server", func(w *world) {
			w.set(six1, refuses(reason.NoProposalChosen, message.NoProposalChosen))
			w.set(gateway, accepts("0.0.0.0/0"))
		}, []string{six1, gateway}, 110 * time.Millisecond, gateway, six1 + " " + gateway},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				tt.set(w)
				list := tt.list
				if list == nil {
					list = []string{name}
				}
				c := w.racing(t, "", 0, list...)
				after(tt.within)
				s := c.status()
				if !s.Connected || tt.winner != "" && s.Remote.Address.String() != tt.winner {
					t.Errorf("after %s: state %s, remote %v, last error %v; want %s", tt.within, s.State, s.Remote, s.LastError, tt.winner)
				}
				var asked []string
				for _, what := range strings.Split(w.happened(), ", ") {
					if a, ok := strings.CutPrefix(what, "initiate "); ok {
						asked = append(asked, a)
					}
				}
				if got := strings.Join(asked, " "); got != tt.asked {
					t.Errorf("asked %s, want %s", got, tt.asked)
				}
				c.stop()
			})
		})
	}
}

// refusesAuth answers the first message and turns the client away in IKE_AUTH.
func refusesAuth(s *fakeStack, id ike.SessionID) {
	time.AfterFunc(50*time.Millisecond, func() {
		if s.answered(id) {
			s.closed(id, reason.AuthFailed, message.AuthenticationFailed)
		}
	})
}

// TestRefusalHoldsForAllAddresses: a gateway that refuses our credentials is not asked
// at its other addresses, another gateway is.
func TestRefusalHoldsForAllAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for _, a := range []string{six1, four1, six2, four2} {
			w.set(a, refusesAuth)
		}
		c := w.racing(t, "reconnect = false", 20*time.Second, name, gateway)
		<-c.done
		if got := w.happened(); strings.Count(got, "initiate") != 2 || !strings.Contains(got, "initiate "+gateway) {
			t.Errorf("happened: %s", got)
		}
		expect(t, c.status(), Disconnected, reason.AuthFailed, "AUTHENTICATION_FAILED")
	})
}

// TestAllFail: one message tells of all.
func TestAllFail(t *testing.T) {
	for _, tt := range []struct {
		what   string
		set    func(w *world)
		code   reason.Code
		notify string
		words  []string
	}{
		{"silence", func(*world) {}, reason.NoAnswer, "TIMEOUT",
			[]string{"no answer from vpn.example.test at 2001:db8::7, 192.0.2.7, 2001:db8::8, 192.0.2.8, UDP port 500"}},
		{"one way only", func(w *world) {
			w.noWay[netip.MustParseAddr(six1)], w.noWay[netip.MustParseAddr(six2)] = true, true
		}, reason.NoAnswer, "TIMEOUT",
			[]string{"no answer from vpn.example.test at 192.0.2.7, 192.0.2.8, UDP", "2001:db8::7: no network leads there"}},
		{"one refuses", func(w *world) { w.set(four1, refuses(reason.NoProposalChosen, message.NoProposalChosen)) },
			reason.NoProposalChosen, "NO_PROPOSAL_CHOSEN", []string{"192.0.2.7", "2001:db8::7: no answer", "192.0.2.8: no answer"}},
		{"no network", func(w *world) {
			for _, a := range []string{six1, four1, six2, four2} {
				w.noWay[netip.MustParseAddr(a)] = true
			}
		}, reason.NoNetwork, "", []string{"no route"}},
		{"no DNS", func(w *world) { w.names[name] = []netip.Addr{} }, reason.DNSFailed, "", []string{"no such host vpn.example.test"}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				tt.set(w)
				c := w.racing(t, "reconnect = false", 20*time.Second, name)
				<-c.done
				s := c.status()
				expect(t, s, Disconnected, tt.code, tt.notify)
				for _, word := range tt.words {
					if !strings.Contains(s.LastError.Message, word) {
						t.Errorf("%q is not in %q", word, s.LastError.Message)
					}
				}
			})
		})
	}
}

// TestUplinkChangesWhileConnecting: what was asked from an address that is gone is
// asked again from the new one, also in the middle of IKE_AUTH.
func TestUplinkChangesWhileConnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set(gateway, stalls)
		c := w.connect(t, "", 0)
		after(time.Second)
		w.set(gateway, accepts("0.0.0.0/0"))
		w.stack().tell() // something else has changed
		after(time.Second)
		if got := w.happened(); got != "stack, initiate 192.0.2.1, repeat" {
			t.Errorf("happened: %s", got)
		}
		w.mu.Lock()
		w.local = netip.MustParseAddr("198.51.100.9")
		w.mu.Unlock()
		w.stack().tell()
		after(100 * time.Millisecond)
		if s := c.status(); !s.Connected {
			t.Errorf("not connected from the new address: %s, %+v", w.happened(), s)
		}
		c.stop()
	})
}

// TestUplinkEndsThePause: nobody waits for the back-off when the network comes back.
func TestUplinkEndsThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.noWay[netip.MustParseAddr(gateway)] = true
		w.set(gateway, accepts("0.0.0.0/0"))
		c := w.connect(t, "", 0)
		after(10 * time.Minute)
		if s := c.status(); s.RetryAt == nil || s.LastError.Code != reason.NoNetwork {
			t.Fatalf("status: %+v", s)
		}
		w.mu.Lock()
		clear(w.noWay)
		w.mu.Unlock()
		w.stack().tell()
		after(100 * time.Millisecond)
		if s := c.status(); !s.Connected {
			t.Errorf("still waits: %+v", s)
		}
		c.stop()
	})
}

// TestUplinksDoNotHurryRefusals: a wrong password stays wrong on another network.
func TestUplinksDoNotHurryRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set(gateway, refusesAuth)
		c := w.connect(t, "", 0)
		after(time.Second)
		w.happened()
		for range 20 {
			w.stack().tell()
			after(time.Second)
		}
		if got := w.happened(); got != "" {
			t.Errorf("happened: %s", got)
		}
		c.stop()
	})
}

// TestICMPHurriesTheNext: a host that says that nothing listens is not waited for, but
// what ICMP says is no end, since anybody can say it.
func TestICMPHurriesTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		says := func(s *fakeStack, _ ike.SessionID) {
			s.errors <- transport.PathError{
				Kind: transport.PortUnreachable, From: netip.MustParseAddr("192.0.2.254"),
				Pair: locator.Pair{Remote: netip.MustParseAddrPort("[" + six1 + "]:500")},
			}
		}
		w.set(six1, func(s *fakeStack, id ike.SessionID) { says(s, id); answersLate(200*time.Millisecond)(s, id) })
		c := w.racing(t, "", 0, six1, gateway)
		after(100 * time.Millisecond)
		if got := w.happened(); got != "stack, initiate "+six1+", initiate "+gateway {
			t.Errorf("happened: %s", got)
		}
		after(200 * time.Millisecond)
		if s := c.status(); !s.Connected || s.Remote.Address.String() != six1 {
			t.Errorf("the lie was believed: %+v", s)
		}
		c.stop()

		w = newWorld()
		w.set(six1, says)
		c = w.racing(t, "reconnect = false", 5*time.Second, six1)
		<-c.done
		if m := c.status().LastError.Message; !strings.Contains(m, "ICMP from 192.0.2.254 says: port unreachable") {
			t.Errorf("message %q", m)
		}
	})
}
