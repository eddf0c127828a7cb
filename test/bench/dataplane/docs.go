package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/wayfarer-vpn/wayfarer/test/bench/dataplane/result"
)

// Columns of the tables.
var (
	plainColumns  = []result.Column{{Peer: "veth", Title: "no tunnel"}, {Peer: "wg", Title: "wireguard-go"}, {Peer: "ours", Title: "Wayfarer"}, {Peer: "strongswan", Title: "strongSwan"}}
	nicColumns    = []result.Column{{Peer: "veth+nic", Title: "no tunnel"}, {Peer: "wg+nic", Title: "wireguard-go"}, {Peer: "ours+nic", Title: "Wayfarer"}, {Peer: "strongswan+nic", Title: "strongSwan"}}
	cipherColumns = []result.Column{{Peer: "ours", Title: "AES-128-GCM"}, {Peer: "ours-aes256", Title: "AES-256-GCM"}, {Peer: "ours-chacha", Title: "ChaCha20-Poly1305"}, {Peer: "ours-cbc", Title: "AES-128-CBC, HMAC-SHA2-256"}}
	colours       = []string{"#9aa5b1", "#1f77d0", "#e8973a"}
)

// partsOfThePath are the Go benchmarks that the page shows.
var partsOfThePath = []string{"Seal", "Open", "Tunnel", "Clients", "RealClients", "Changes", "MemoryPerChild", "SPDLookup"}

// blocks are the parts of performance.md that are written.
func blocks(f *result.File) map[string]string {
	return map[string]string{
		"conditions": f.Conditions(),
		"plain":      f.Table(plainColumns, "ours", "wg"),
		"nic":        f.Table(nicColumns, "ours+nic", "wg+nic"),
		"ciphers":    f.Table(cipherColumns, "", ""),
		"go":         f.GoBenchmarkTable(partsOfThePath),
	}
}

func svg(f *result.File) string {
	return f.Chart("Wayfarer beside other tunnels in user space",
		"Ratio to wireguard-go in the same run; medians. Two namespaces on one machine, joined by veth, MTU 1500.\nBoth ends, both TCP stacks and the load generator share its cores.",
		plainColumns[1:], colours, "wg").SVG()
}

// render puts the results into the text of performance.md.
func render(f *result.File, document string) (string, error) {
	for name, text := range blocks(f) {
		if text == "" {
			text = "(not measured)"
		}
		var err error
		if document, err = result.Replace(document, name, text); err != nil {
			return "", err
		}
	}
	return document, nil
}

func writeDocs(f *result.File, dir string) error {
	path := filepath.Join(dir, "performance.md")
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, err := render(f, string(old))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "performance.svg"), []byte(svg(f)), 0o644)
}

// summary is what a run prints.
func summary(f *result.File) string {
	var b strings.Builder
	for _, name := range []string{"conditions", "plain", "nic", "ciphers"} {
		if text := blocks(f)[name]; text != "" && (name != "ciphers" || len(f.Values("ours-chacha", "tcp1")) > 0) {
			b.WriteString(text + "\n")
		}
	}
	return b.String()
}

// machine describes this machine.
func (l *lab) machine(ctx context.Context) result.Machine {
	m := result.Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), CPU: runtime.GOARCH}
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if found := regexp.MustCompile(`(?m)^model name\s*:\s*(.+)$`).FindSubmatch(data); found != nil {
			m.CPU = string(found[1])
		}
	}
	if data, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel, _, _ = strings.Cut(strings.TrimSpace(string(data)), "-") // what follows names one build
	}
	if out, err := command(ctx, nil, "go", "list", "-C", l.root, "-m", "-f", "{{.Version}}", "golang.zx2c4.com/wireguard"); err == nil {
		m.Compare = "wireguard-go " + strings.TrimSpace(string(out))
	}
	if out, err := command(ctx, nil, "swanctl", "--version"); err == nil {
		m.Compare += ", " + strings.TrimSpace(string(out))
	}
	return m
}

// version is what the measured programs say they are.
func (l *lab) version(ctx context.Context) string {
	out, err := command(ctx, nil, filepath.Join(l.bin, "vpn-server"), "--version")
	fields := strings.Fields(string(out))
	if err != nil || len(fields) == 0 {
		return "unknown"
	}
	return fields[len(fields)-1]
}

func round4(v float64) float64 { return math.Round(v*1e4) / 1e4 }
