package auth

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// The first example of RFC 3779 Appendix B, from IPAddrBlocks on. (The second one
// writes 176.16/12 where it says 172.16/12.)
const rfc3779Example = "3035" + "302b" + "0403000101" + "3024" +
	"0304040a0020" + "0304000a0040" + "0303000a01" + "300c" + "0304040a0230" + "0304000a0240" + "0303000a03" +
	"3006" + "04020002" + "0500"

func TestParseAddressBlocksRFC3779(t *testing.T) {
	der, err := hex.DecodeString(rfc3779Example)
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := parseAddressBlocks(der)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range blocks["\x00\x01\x01"].ranges {
		got = append(got, fmt.Sprintf("%v-%v", r.from, r.to))
	}
	want := "10.0.32.0-10.0.47.255 10.0.64.0-10.0.64.255 10.1.0.0-10.1.255.255 10.2.48.0-10.2.64.255 10.3.0.0-10.3.255.255"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got %s, want %s", s, want)
	}
	if !blocks["\x00\x02"].inherit || len(blocks) != 2 {
		t.Errorf("got %v", blocks)
	}
	for n := range der {
		if _, err := parseAddressBlocks(der[:n]); err == nil {
			t.Errorf("accepted with %d of %d octets", n, len(der))
		}
	}
}

func TestParseAddressBlocksRefuses(t *testing.T) {
	for what, digits := range map[string]string{
		"trailing octet":         rfc3779Example + "00",
		"family twice":           "3010" + "3006" + "04020001" + "0500" + "3006" + "04020001" + "0500",
		"unknown family":         "3008" + "3006" + "04020003" + "0500",
		"short family":           "3007" + "3005" + "040101" + "0500",
		"prefix too long":        "300f" + "300d" + "04020001" + "3007" + "0305000a000000" + "00",
		"range upside down":      "3014" + "3012" + "04020001" + "300c" + "300a" + "0303000a02" + "0303000a01",
		"not in order":           "3012" + "3010" + "04020001" + "300a" + "0303000a02" + "0303000a01",
		"touching":               "3012" + "3010" + "04020001" + "300a" + "0303000a01" + "0303000a02",
		"twice":                  "3012" + "3010" + "04020001" + "300a" + "0303000a01" + "0303000a01",
		"after the last address": "3010300e040200013008030200ff0302000a",
		"something after NULL":   "300a" + "3008" + "04020001" + "0500" + "0500",
		"neither list nor NULL":  "3009" + "3007" + "04020001" + "020100",
	} {
		der, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		if blocks, err := parseAddressBlocks(der); err == nil {
			t.Errorf("%s: %v", what, blocks)
		}
	}
}

// blocksExtension encodes IPv4 prefixes; "inherit" for the choice of that name.
func blocksExtension(t *testing.T, prefixes ...string) pkix.Extension {
	t.Helper()
	type family struct {
		Family []byte
		Choice any
	}
	f := family{Family: []byte{0, 1}, Choice: asn1.NullRawValue}
	if !slices.Contains(prefixes, "inherit") {
		list := []asn1.BitString{}
		for _, s := range prefixes {
			p := netip.MustParsePrefix(s)
			list = append(list, asn1.BitString{Bytes: p.Addr().AsSlice()[:(p.Bits()+7)/8], BitLength: p.Bits()})
		}
		f.Choice = list
	}
	der, err := asn1.Marshal([]family{f})
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: oidAddressBlocks, Critical: true, Value: der}
}

func TestAddressBlocksInChain(t *testing.T) {
	with := func(c *x509.Certificate, prefixes ...string) *x509.Certificate {
		if prefixes != nil {
			c.ExtraExtensions = append(c.ExtraExtensions, blocksExtension(t, prefixes...))
		}
		return c
	}
	list := func(prefixes ...string) []string { return prefixes }
	for _, tc := range []struct {
		name              string
		root, inter, leaf []string
		want              error
		says              string
		holds, lacks      []string // addresses that the leaf may use or not
	}{
		{name: "within", root: list("10.0.0.0/8"), inter: list("10.1.0.0/16"), leaf: list("10.1.2.0/24"),
			holds: list("10.1.2.0", "10.1.2.255", "::ffff:10.1.2.3"), lacks: list("10.1.1.255", "10.1.3.0", "::a01:203")},
		{name: "several", root: list("10.0.0.0/8", "192.0.2.0/24"), inter: list("10.1.0.0/16", "192.0.2.0/25"), leaf: list("192.0.2.1/32")},
		{name: "inherited", root: list("10.0.0.0/8"), inter: list("inherit"), leaf: list("10.255.0.0/16")},
		{name: "inherited by all", root: list("10.0.0.0/8"), inter: list("inherit"), leaf: list("inherit"), holds: list("10.0.0.0", "10.255.255.255"), lacks: list("11.0.0.0", "9.255.255.255")},
		{name: "only authorities", root: list("10.0.0.0/8"), inter: list("10.0.0.0/8"), lacks: list("10.0.0.1")},
		{name: "only the root", root: list("10.0.0.0/8")},
		{name: "everything", root: list("0.0.0.0/0"), inter: list("0.0.0.0/0"), leaf: list("255.255.255.255/32")},
		{name: "beyond the intermediate", root: list("10.0.0.0/8"), inter: list("10.1.0.0/16"), leaf: list("10.2.0.0/24"), want: ErrBadCertificate, says: "10.2.0.0 to 10.2.0.255"},
		{name: "intermediate beyond the root", root: list("10.0.0.0/8"), inter: list("11.0.0.0/8"), leaf: list("11.0.0.0/24"), want: ErrBadCertificate, says: "intermediate"},
		{name: "overlapping", root: list("10.0.0.0/9"), inter: list("10.0.0.0/8"), leaf: list("10.0.0.0/24"), want: ErrBadCertificate},
		{name: "root without", inter: list("10.0.0.0/8"), leaf: list("10.0.0.0/24"), want: ErrBadCertificate, says: "no addresses of family 0001"},
		{name: "intermediate without", root: list("10.0.0.0/8"), leaf: list("10.0.0.0/24"), want: ErrBadCertificate},
		{name: "root inherits", root: list("inherit"), inter: list("10.0.0.0/8"), leaf: list("10.0.0.0/24"), want: ErrBadCertificate, says: "root cannot inherit"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := sign(t, with(caTemplate("root"), tc.root...), testKey(t, "p256"), nil)
			inter := root.issue(t, with(caTemplate("intermediate"), tc.inter...), "p256")
			template := certTemplate(laptop)
			template.EmailAddresses = []string{laptop}
			leaf := inter.issue(t, with(template, tc.leaf...), "p256")
			r := remote(root)
			r.Cache = NewCache(4)
			for range 2 {
				chain, err := r.verifyChain(testNow, mustIdentity(t, laptop), certs(leaf, inter), nil)
				if !errors.Is(err, tc.want) || err != nil && !strings.Contains(err.Error(), tc.says) {
					t.Errorf("got %v, want %v that says %q", err, tc.want, tc.says)
				}
				if err == nil {
					wantCertified(t, certifiedAddresses(chain), tc.holds, tc.lacks)
				}
			}
		})
	}
}

func wantCertified(t *testing.T, set AddressSet, holds, lacks []string) {
	t.Helper()
	for want, list := range map[bool][]string{true: holds, false: lacks} {
		for _, a := range list {
			if set.Contains(netip.MustParseAddr(a)) != want {
				t.Errorf("%s is certified: %v, want %v", a, !want, want)
			}
		}
	}
}

func FuzzParseAddressBlocks(f *testing.F) {
	der, err := hex.DecodeString(rfc3779Example)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add([]byte{0x30, 0})
	f.Fuzz(func(t *testing.T, der []byte) {
		blocks, err := parseAddressBlocks(der)
		if err != nil {
			return
		}
		for _, b := range blocks {
			for i, r := range b.ranges {
				if !r.from.IsValid() || r.to.Less(r.from) || i > 0 && !b.ranges[i-1].to.Less(r.from) {
					t.Fatalf("ranges %v", b.ranges)
				}
			}
		}
		if _, err := blocks.within(blocks, false); err != nil && !hasInherit(blocks) {
			t.Fatalf("not within itself: %v", err)
		}
	})
}

func hasInherit(blocks addressBlocks) bool {
	for _, b := range blocks {
		if b.inherit {
			return true
		}
	}
	return false
}
