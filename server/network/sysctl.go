package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/wayfarer-vpn/wayfarer/internal/atomicfile"
)

// sysctls changes kernel settings and restores them. What they were is noted in a
// file before they are changed, so that a run which crashed does not make its change
// look like the administrator's. After a reboot the notes are void.
//
// Forwarding is restored because a machine that was no router should not be one any
// more when the gateway is gone. Whoever wants it to stay sets it in sysctl.d, as
// distributions expect: then there is nothing to change and nothing to restore.
type sysctls struct {
	root  string // /proc/sys
	notes string
	log   *slog.Logger
}

// noted is the content of the notes.
type noted struct {
	Boot    string            `json:"boot"`
	Changed map[string]change `json:"changed"` // by the setting's path below /proc/sys
}

// change is what a setting was and what we made of it.
type change struct {
	Was string `json:"was"`
	Is  string `json:"is"`
}

// forward turns on forwarding for the families of the pools.
func (s *sysctls) forward(d Desired) error {
	for _, p := range d.Pools {
		if p.Addr().Is4() {
			if err := s.require("net/ipv4/ip_forward"); err != nil {
				return err
			}
			continue
		}
		s.keepRouterAdvertisements(d.Device)
		if err := s.require("net/ipv6/conf/all/forwarding"); err != nil {
			return err
		}
	}
	return nil
}

func (s *sysctls) require(name string) error {
	if s.get(name) == "1" {
		return nil
	}
	if err := s.change(name, "1"); err != nil {
		return fmt.Errorf("turn on forwarding: %w: set %s=1 on the host, for instance in /etc/sysctl.d", err, strings.ReplaceAll(name, "/", "."))
	}
	return nil
}

// keepRouterAdvertisements keeps an IPv6 uplink working that is configured by router
// advertisements: the kernel ignores them (accept_ra 1) once the machine forwards,
// and the default route would expire; with 2 it goes on listening.
func (s *sysctls) keepRouterAdvertisements(device string) {
	if s.get("net/ipv6/conf/all/forwarding") == "1" {
		return // the administrator has made it a router and knows
	}
	entries, err := os.ReadDir(filepath.Join(s.root, "net/ipv6/conf"))
	if err != nil {
		return
	}
	for _, e := range entries {
		name := "net/ipv6/conf/" + e.Name() + "/accept_ra"
		if e.Name() == "all" || e.Name() == "lo" || e.Name() == device || s.get(name) != "1" {
			continue
		}
		if err := s.change(name, "2"); err != nil {
			s.log.Warn("router advertisements will be ignored now that the machine forwards", "interface", e.Name(), "error", err)
		}
	}
}

// change notes the present value and sets a new one.
func (s *sysctls) change(name, value string) error {
	n := s.read()
	if _, known := n.Changed[name]; !known {
		n.Changed[name] = change{Was: s.get(name), Is: value}
		if err := s.write(n); err != nil {
			return err
		}
	}
	return s.set(name, value)
}

// restore sets everything back that was changed, unless somebody else has changed it
// since.
func (s *sysctls) restore() error {
	var errs []error
	for name, c := range s.read().Changed {
		if s.get(name) != c.Is {
			continue
		}
		if err := s.set(name, c.Was); err != nil && !errors.Is(err, fs.ErrNotExist) { // the interface has gone
			errs = append(errs, err)
		}
	}
	if err := os.Remove(s.notes); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (s *sysctls) get(name string) string {
	data, err := os.ReadFile(filepath.Join(s.root, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

func (s *sysctls) set(name, value string) error {
	f, err := os.OpenFile(filepath.Join(s.root, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value + "\n")
	return errors.Join(err, f.Close())
}

// read returns the notes of this boot.
func (s *sysctls) read() noted {
	empty := noted{Boot: s.get("kernel/random/boot_id"), Changed: map[string]change{}}
	data, err := os.ReadFile(s.notes)
	if err != nil {
		return empty
	}
	var n noted
	if json.Unmarshal(data, &n) != nil || n.Boot != empty.Boot || n.Changed == nil {
		return empty
	}
	for name := range n.Changed {
		if !filepath.IsLocal(name) || !strings.HasPrefix(name, "net/") {
			return empty // not written by us
		}
	}
	return n
}

func (s *sysctls) write(n noted) error {
	data, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(s.notes, append(data, '\n'), 0o600)
}

func ipv6Missing() bool {
	_, err := os.Stat("/proc/net/if_inet6")
	return errors.Is(err, fs.ErrNotExist)
}
