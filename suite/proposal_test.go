package suite

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParseIKEProposals(t *testing.T) {
	for text, want := range map[string][]IKEProposal{
		"aes256gcm16-prfsha256-x25519": {{
			Encr: []Encr{{EncrAESGCM16, 256}}, PRF: []PRFID{PRFHMACSHA256}, KE: []KEID{KECurve25519},
		}},
		"aes256-sha256-x25519-ecp384": {{
			Encr: []Encr{{EncrAESCBC, 256}}, Integ: []IntegID{IntegHMACSHA256}, PRF: []PRFID{PRFHMACSHA256}, KE: []KEID{KECurve25519, KEP384},
		}},
		"aes128-aes256-sha384-sha512-prfsha256-modp2048": {{
			Encr: []Encr{{EncrAESCBC, 128}, {EncrAESCBC, 256}}, Integ: []IntegID{IntegHMACSHA384, IntegHMACSHA512},
			PRF: []PRFID{PRFHMACSHA256}, KE: []KEID{KEModp2048},
		}},
		// The common spelling for AEAD ciphers: sha384 is the function only.
		"aes256gcm16-sha384-ecp384": {{
			Encr: []Encr{{EncrAESGCM16, 256}}, PRF: []PRFID{PRFHMACSHA384}, KE: []KEID{KEP384},
		}},
		" AES256GCM-prfSHA512-curve25519 , chacha20poly1305-prfsha256-ecp521": {
			{Encr: []Encr{{EncrAESGCM16, 256}}, PRF: []PRFID{PRFHMACSHA512}, KE: []KEID{KECurve25519}},
			{Encr: []Encr{{EncrChaCha20Poly1305, 0}}, PRF: []PRFID{PRFHMACSHA256}, KE: []KEID{KEP521}},
		},
		"modern":        DefaultIKEProposals(),
		"modern,compat": append(DefaultIKEProposals(), CompatIKEProposals()...),
		"compat, aes128-sha256-modp3072-modp4096": append(CompatIKEProposals(), IKEProposal{
			Encr: []Encr{{EncrAESCBC, 128}}, Integ: []IntegID{IntegHMACSHA256}, PRF: []PRFID{PRFHMACSHA256}, KE: []KEID{KEModp3072, KEModp4096},
		}),
	} {
		got, err := ParseIKEProposals(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestParseESPProposals(t *testing.T) {
	both := []bool{true, false}
	for text, want := range map[string][]ESPProposal{
		"aes256gcm16-x25519,aes256gcm16": {
			{Encr: []Encr{{EncrAESGCM16, 256}}, KE: []KEID{KECurve25519}, ESN: both},
			{Encr: []Encr{{EncrAESGCM16, 256}}, ESN: both},
		},
		"aes128-sha256-noesn":   {{Encr: []Encr{{EncrAESCBC, 128}}, Integ: []IntegID{IntegHMACSHA256}, ESN: []bool{false}}},
		"aes128-sha256-esn":     {{Encr: []Encr{{EncrAESCBC, 128}}, Integ: []IntegID{IntegHMACSHA256}, ESN: []bool{true}}},
		"aes256gcm16-noesn-esn": {{Encr: []Encr{{EncrAESGCM16, 256}}, ESN: []bool{false, true}}},
		"modern":                DefaultESPProposals(),
		"modern,compat":         append(DefaultESPProposals(), CompatESPProposals()...),
	} {
		got, err := ParseESPProposals(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
}

// TestProposalErrors checks that errors say what is wrong.
func TestProposalErrors(t *testing.T) {
	ike := func(s string) error { _, err := ParseIKEProposals(s); return err }
	esp := func(s string) error { _, err := ParseESPProposals(s); return err }
	for _, c := range []struct {
		parse func(string) error
		text  string
		says  []string
	}{
		{ike, "", []string{"empty"}},
		{ike, "aes256gcm16-prfsha256-x25519,", []string{"empty"}},
		{ike, "aes256gmc16-prfsha256-x25519", []string{`"aes256gmc16"`, `"aes256gcm16"`}},
		{ike, "aes256gcm16-prfsha265-x25519", []string{`"prfsha265"`, `"prfsha256"`}},
		{ike, "aes256-sha256-x22519", []string{`"x22519"`, `"x25519"`}},
		{ike, "aes256--sha256", []string{`unknown algorithm ""`}},
		{ike, "aes256-aes256gcm16-sha256-x25519", []string{"aes256 and aes256gcm16", "separated by a comma"}},
		{ike, "aes256-x25519", []string{"integrity", "sha256"}},
		{ike, "aes256gcm16-x25519", []string{"pseudo-random", "prfsha256"}},
		{ike, "aes256gcm16-sha256-prfsha256-x25519", []string{"aes256gcm16 takes no integrity algorithm", "sha256"}},
		{ike, "aes256gcm16-prfsha256", []string{"key exchange", "x25519"}},
		{ike, "sha256-x25519", []string{"cipher"}},
		{ike, "aes256gcm16-prfsha256-x25519-esn", []string{"ESP only"}},
		{ike, "aes256-sha1-modp1024", []string{`"sha1"`, "weak"}},
		{ike, "aes256-sha256-modp1024", []string{`"modp1024"`, "modp2048"}},
		{ike, "3des-sha256-modp2048", []string{`"3des"`, "weak"}},
		{ike, "aes256-aes256-sha256-x25519", []string{"twice"}},
		{ike, "aes256gcm16-aes256gcm-prfsha256-x25519", []string{"twice"}},
		{ike, "modern-x25519", []string{"modern", "comma"}},
		{ike, strings.Repeat("modern,", 40) + "modern", []string{"at most 32"}},
		{ike, strings.Repeat("x", 5000), []string{"longer than"}},
		{ike, strings.Repeat("x", 4000), []string{"unknown algorithm"}},
		{esp, "aes256gcm16-prfsha256", []string{"IKE only"}},
		{esp, "aes256gcm16-sha256", []string{"no integrity algorithm"}},
		{esp, "aes256", []string{"integrity", "sha256"}},
		{esp, "x25519", []string{"cipher"}},
		{esp, "aes256gcm16-esn-esn", []string{"twice"}},
	} {
		err := c.parse(c.text)
		if err == nil {
			t.Errorf("%.60q was accepted", c.text)
			continue
		}
		for _, part := range c.says {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%.60q: the error does not say %q: %v", c.text, part, err)
			}
		}
	}
}

// TestPredefinedProposals: everything in them is implemented and well formed, and
// modern means what it says.
func TestPredefinedProposals(t *testing.T) {
	for _, p := range append(DefaultIKEProposals(), CompatIKEProposals()...) {
		got, err := ParseIKEProposals(p.String())
		if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], p) {
			t.Errorf("%v: read back as %v, %v", p, got, err)
		}
	}
	for _, p := range append(DefaultESPProposals(), CompatESPProposals()...) {
		got, err := ParseESPProposals(p.String())
		if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], p) {
			t.Errorf("%v: read back as %v, %v", p, got, err)
		}
	}
	for _, p := range DefaultIKEProposals() {
		if slices.ContainsFunc(p.Encr, func(e Encr) bool { return !e.AEAD() }) ||
			slices.ContainsFunc(p.KE, func(id KEID) bool { return id <= KEModp4096 }) {
			t.Errorf("%v is not modern", p)
		}
	}
	// Callers may change what they get.
	DefaultIKEProposals()[0].KE[0] = KEModp2048
	DefaultESPProposals()[0].ESN[0] = false
	CompatIKEProposals()[0].PRF[0] = 0
	if DefaultIKEProposals()[0].KE[0] != KECurve25519 || !DefaultESPProposals()[0].ESN[0] ||
		CompatIKEProposals()[0].PRF[0] != PRFHMACSHA256 || CompatIKEProposals()[1].PRF[0] != PRFHMACSHA256 {
		t.Error("lists are shared between callers")
	}
}

func FuzzParseProposals(f *testing.F) {
	for _, s := range []string{
		"modern,compat", "aes256gcm16-prfsha256-x25519,aes256-sha256-x25519-ecp384", "aes256gcm16-sha384-ecp384",
		"aes128-aes256-sha384-sha512-prfsha256-modp2048", "aes256gcm16-noesn", "chacha20poly1305-esn-noesn", "aes256-md5", ",-",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if ps, err := ParseIKEProposals(s); err == nil {
			for _, p := range ps {
				again, err := ParseIKEProposals(p.String())
				if err != nil || len(again) != 1 || !reflect.DeepEqual(again[0], p) {
					t.Fatalf("%v: read back as %v, %v", p, again, err)
				}
			}
		}
		if ps, err := ParseESPProposals(s); err == nil {
			for _, p := range ps {
				again, err := ParseESPProposals(p.String())
				if err != nil || len(again) != 1 || !reflect.DeepEqual(again[0], p) {
					t.Fatalf("%v: read back as %v, %v", p, again, err)
				}
			}
		}
	})
}
