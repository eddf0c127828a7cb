package message

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/suite"
)

// unhex decodes hexadecimal with spaces and line breaks in it.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatalf("bad hexadecimal in the test: %v", err)
	}
	return b
}

// golden are payloads next to their octets behind the generic header, written by
// hand from the figures of RFC 7296 §3 unless a source is named. They read both
// ways.
var golden = []struct {
	name    string
	payload Payload
	body    string
}{
	{
		"SA with one proposal for IKE, Figures 6 to 9",
		&SA{Proposals: []Proposal{{Number: 1, Protocol: ProtoIKE, Transforms: []Transform{
			{Type: TransformEncr, ID: 20, KeyBits: 256},
			{Type: TransformPRF, ID: 5},
			{Type: TransformKE, ID: 31},
		}}}},
		`00 00 0024 01 01 00 03
		 03 00 000c 01 00 0014 800e 0100
		 03 00 0008 02 00 0005
		 00 00 0008 04 00 001f`,
	},
	{
		"SA with two proposals for ESP",
		&SA{Proposals: []Proposal{
			{Number: 1, Protocol: ProtoESP, SPI: []byte{0xc0, 1, 2, 3}, Transforms: []Transform{
				{Type: TransformEncr, ID: 28}, {Type: TransformESN, ID: 1}, {Type: TransformESN, ID: 0},
			}},
			{Number: 2, Protocol: ProtoESP, SPI: []byte{0xc0, 1, 2, 3}, Transforms: []Transform{
				{Type: TransformEncr, ID: 12, KeyBits: 128}, {Type: TransformInteg, ID: 12}, {Type: TransformESN, ID: 0},
			}},
		}},
		`02 00 0024 01 03 04 03 c0010203
		 03 00 0008 01 00 001c
		 03 00 0008 05 00 0001
		 00 00 0008 05 00 0000
		 00 00 0028 02 03 04 03 c0010203
		 03 00 000c 01 00 000c 800e 0080
		 03 00 0008 03 00 000c
		 00 00 0008 05 00 0000`,
	},
	{
		"SA that rekeys an IKE SA, without transforms",
		&SA{Proposals: []Proposal{{Number: 1, Protocol: ProtoIKE, SPI: []byte{1, 2, 3, 4, 5, 6, 7, 8}, Transforms: []Transform{}}}},
		`00 00 0010 01 01 08 00 0102030405060708`,
	},
	{
		"KE, Figure 10",
		&KE{Method: suite.KECurve25519, Data: []byte{1, 2, 3}},
		`001f 0000 010203`,
	},
	{
		"IDi, Figure 11",
		&ID{Kind: IDFQDN, Data: []byte("vpn.example.org")},
		`02 000000 76706e2e6578616d706c652e6f7267`,
	},
	{
		"IDr with reserved octets that are not zero",
		&ID{Responder: true, Kind: IDIPv4, Data: []byte{192, 0, 2, 1}, reserved: [3]byte{1, 2, 3}},
		`01 010203 c0000201`,
	},
	{"IDi, ID_NULL of RFC 7619 §2.2", &ID{Kind: IDNull}, `0d 000000`},
	{"CERT, Figure 12", &Cert{Encoding: CertX509Signature, Data: []byte{0x30, 0}}, `04 3000`},
	{
		"CERTREQ, Figure 13",
		&CertReq{Encoding: CertX509Signature, Data: bytes.Repeat([]byte{7}, 40)},
		"04" + strings.Repeat("07", 40),
	},
	{"CERTREQ without authorities", &CertReq{Encoding: CertX509Signature}, `04`},
	{"AUTH, Figure 14", &Auth{Method: AuthSharedKey, Data: []byte{9, 8}}, `02 000000 0908`},
	{
		"AUTH of RFC 7427 §3",
		&Auth{Method: AuthDigitalSignature, Data: []byte{0x0f, 0x30, 0x0d}},
		`0e 000000 0f300d`,
	},
	{"Nonce, Figure 15", &Nonce{Data: bytes.Repeat([]byte{0xab}, 32)}, strings.Repeat("ab", 32)},
	{"N, RFC 7634 appendix B", &Notify{Kind: SetWindowSize, Data: []byte{0, 0, 0, 10}}, `00 00 4001 0000000a`},
	{
		"N with an SPI, REKEY_SA",
		&Notify{Protocol: ProtoESP, SPI: []byte{1, 2, 3, 4}, Kind: RekeySA},
		`03 04 4009 01020304`,
	},
	{"D for the IKE SA, Figure 17", &Delete{Protocol: ProtoIKE}, `01 00 0000`},
	{"D for Child SAs", &Delete{Protocol: ProtoESP, SPIs: []uint32{0x01020304, 0xfffffffe}}, `03 04 0002 01020304 fffffffe`},
	{"V, Figure 18", &VendorID{Data: []byte("hello")}, `68656c6c6f`},
	{"V without content", &VendorID{}, ``},
	{
		"TSi, Figures 19 and 20",
		&TS{Selectors: []TrafficSelector{
			{Protocol: 17, StartPort: 100, EndPort: 100, Start: netip.MustParseAddr("198.51.100.66"), End: netip.MustParseAddr("198.51.100.66")},
			{StartPort: 0, EndPort: 65535, Start: netip.MustParseAddr("::"), End: netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")},
		}},
		`02 000000
		 07 11 0010 0064 0064 c6336442 c6336442
		 08 00 0028 0000 ffff 00000000000000000000000000000000 ffffffffffffffffffffffffffffffff`,
	},
	{
		"TSr with OPAQUE ports",
		&TS{Responder: true, Selectors: []TrafficSelector{
			{Protocol: 6, StartPort: 65535, EndPort: 0, Start: netip.MustParseAddr("0.0.0.0"), End: netip.MustParseAddr("255.255.255.255")},
		}},
		`01 000000 07 06 0010 ffff 0000 00000000 ffffffff`,
	},
	{
		"CP, Figures 22 and 23",
		&CP{Kind: CFGRequest, Attributes: []Attribute{
			{Type: InternalIP4Address}, {Type: InternalIP4DNS, Value: []byte{192, 0, 2, 53}}, {Type: 0x7fff, Value: []byte{1}},
		}},
		`01 000000 0001 0000 0003 0004 c0000235 7fff 0001 01`,
	},
	{"CP without attributes", &CP{Kind: CFGAck}, `04 000000`},
	{"EAP, Figure 25", &EAP{Data: []byte{1, 7, 0, 5, 1}}, `01 07 0005 01`},
	{"a payload of unknown type", &Unknown{Kind: 200, Data: []byte{1, 2}}, `0102`},
}

// payloadOctets returns a payload with its generic header, as the last of a chain.
func payloadOctets(body []byte) []byte {
	n := len(body) + payloadHeaderLen
	return append([]byte{0, 0, byte(n >> 8), byte(n)}, body...)
}

func TestGoldenPayloads(t *testing.T) {
	for _, g := range golden {
		octets := payloadOctets(unhex(t, g.body))
		ps, err := ParsePayloads(g.payload.Type(), octets)
		if err != nil || len(ps) != 1 || !reflect.DeepEqual(ps[0], g.payload) {
			t.Errorf("%s: parsed to %+v, %v", g.name, ps, err)
		}
		first, got, err := AppendPayloads(nil, []Payload{g.payload})
		if err != nil || first != g.payload.Type() || !bytes.Equal(got, octets) {
			t.Errorf("%s: appended as %v %x, %v", g.name, first, got, err)
		}
	}
}

// TestGoldenIsComplete: no payload is left out of the tests above.
func TestGoldenIsComplete(t *testing.T) {
	seen := map[PayloadType]bool{TypeSK: true, TypeSKF: true} // see TestEncrypted
	for _, g := range golden {
		seen[g.payload.Type()] = true
	}
	for typ := range payloadNames {
		if !seen[typ] {
			t.Errorf("no golden octets for %v", typ)
		}
	}
}

// cuttable are payloads whose body may end anywhere, once its fixed part is there.
var cuttable = map[PayloadType]int{
	TypeVendor: 0, 200: 0, TypeCertReq: 1, TypeCert: 2, TypeKE: 5, TypeAuth: 5, TypeNonce: 16,
	TypeIDi: 4, TypeIDr: 4, TypeNotify: 4,
}

// TestCutPayloads cuts each payload at each length, once with a generic header
// that tells the truth and once with one that does not.
func TestCutPayloads(t *testing.T) {
	for _, g := range golden {
		body, typ := unhex(t, g.body), g.payload.Type()
		whole := payloadOctets(body)
		for n := range whole {
			if _, err := ParsePayloads(typ, whole[:n]); !isSyntaxError(err) {
				t.Errorf("%s, %d octets of %d: %v", g.name, n, len(whole), err)
			}
		}
		if _, err := ParsePayloads(typ, append(whole, 0)); !isSyntaxError(err) {
			t.Errorf("%s and one octet more: %v", g.name, err)
		}
		for n := range body {
			_, err := ParsePayloads(typ, payloadOctets(body[:n]))
			if err != nil && !isSyntaxError(err) {
				t.Errorf("%s, body of %d octets: %v", g.name, n, err)
			}
			least, free := cuttable[typ]
			if err == nil && (!free || n < least) && !endsAtAttribute(t, typ, body, n) {
				t.Errorf("%s, body of %d octets of %d was accepted", g.name, n, len(body))
			}
		}
	}
}

// endsAtAttribute says whether a CP body can end at n: behind its header or behind
// one of its attributes.
func endsAtAttribute(t *testing.T, typ PayloadType, body []byte, n int) bool {
	t.Helper()
	if typ != TypeCP {
		return false
	}
	for at := 4; at <= n; at += 4 + int(body[at+2])<<8 + int(body[at+3]) {
		if at == n {
			return true
		}
	}
	return false
}

func isSyntaxError(err error) bool {
	_, ok := errors.AsType[*SyntaxError](err)
	return ok
}

// TestMalformedPayloads has what cutting does not find.
func TestMalformedPayloads(t *testing.T) {
	for _, c := range []struct {
		name string
		typ  PayloadType
		body string
	}{
		{"no proposal", TypeSA, ``},
		{"more proposals announced", TypeSA, `02 00 0008 01 01 00 00`},
		{"proposal with a strange marker", TypeSA, `03 00 0008 01 01 00 00`},
		{"proposal shorter than its header", TypeSA, `00 00 0007 01 01 00 00`},
		{"proposal of length zero", TypeSA, `00 00 0000 01 01 00 00`},
		{"octets behind the last proposal", TypeSA, `00 00 0008 01 01 00 00 00`},
		{"SPI of 4 octets for IKE", TypeSA, `00 00 000c 01 01 04 00 01020304`},
		{"SPI of 8 octets for ESP", TypeSA, `00 00 0010 01 03 08 00 0102030405060708`},
		{"no SPI for ESP", TypeSA, `00 00 0008 01 03 00 00`},
		{"SPI longer than the proposal", TypeSA, `00 00 000a 01 01 08 00 0102`},
		{"fewer transforms than announced", TypeSA, `00 00 0010 01 01 00 02 03 00 0008 02 00 0005`},
		{"more transforms than announced", TypeSA, `00 00 0018 01 01 00 01 00 00 0008 02 00 0005 00 00 0008 02 00 0005`},
		{"last transform says more", TypeSA, `00 00 0010 01 01 00 01 03 00 0008 02 00 0005`},
		{"first of two transforms says last", TypeSA, `00 00 0018 01 01 00 02 00 00 0008 02 00 0005 00 00 0008 02 00 0005`},
		{"transform with a strange marker", TypeSA, `00 00 0010 01 01 00 01 02 00 0008 02 00 0005`},
		{"transform shorter than its header", TypeSA, `00 00 0010 01 01 00 01 00 00 0007 02 00 0005`},
		{"transform longer than the proposal", TypeSA, `00 00 0010 01 01 00 01 00 00 0009 02 00 0005`},
		{"attribute cut off", TypeSA, `00 00 0012 01 01 00 01 00 00 000a 01 00 0014 800e`},
		{"long attribute cut off", TypeSA, `00 00 0015 01 01 00 01 00 00 000d 01 00 0014 0001 0002 01`},
		{"KE without data", TypeKE, `001f 0000`},
		{"nonce of 15 octets", TypeNonce, strings.Repeat("00", 15)},
		{"nonce of 257 octets", TypeNonce, strings.Repeat("00", 257)},
		{"ID_IPV4_ADDR of 5 octets", TypeIDi, `01 000000 0102030405`},
		{"ID_IPV6_ADDR of 4 octets", TypeIDr, `05 000000 01020304`},
		{"ID_NULL with data", TypeIDi, `0d 000000 00`},
		{"certificate without data", TypeCert, `04`},
		{"AUTH without data", TypeAuth, `02 000000`},
		{"notify with an SPI of 3 octets", TypeNotify, `03 03 4009 010203`},
		{"notify with a cut SPI", TypeNotify, `03 04 4009 010203`},
		{"delete without protocol", TypeDelete, `00 00 0000`},
		{"delete of the IKE SA with an SPI", TypeDelete, `01 08 0001 0102030405060708`},
		{"delete of the IKE SA with a count", TypeDelete, `01 00 0001`},
		{"delete of ESP with SPIs of 8 octets", TypeDelete, `03 08 0001 0102030405060708`},
		{"delete with fewer SPIs than announced", TypeDelete, `03 04 0002 01020304`},
		{"delete with more SPIs than announced", TypeDelete, `03 04 0001 01020304 01020304`},
		{"no traffic selector", TypeTSi, `00 000000`},
		{"fewer selectors than announced", TypeTSi, `02 000000 07 00 0010 0000 ffff 00000000 ffffffff`},
		{"more selectors than announced", TypeTSi, `01 000000 07 00 0010 0000 ffff 00000000 ffffffff 07 00 0010 0000 ffff 00000000 ffffffff`},
		{"IPv4 selector of IPv6 length", TypeTSr, `01 000000 07 00 0028 0000 ffff` + strings.Repeat("00", 16) + strings.Repeat("ff", 16)},
		{"IPv6 selector of IPv4 length", TypeTSr, `01 000000 08 00 0010 0000 ffff 00000000 ffffffff`},
		{"unknown selector of length 3", TypeTSr, `01 000000 09 00 0003`},
		{"address range the wrong way round", TypeTSi, `01 000000 07 00 0010 0000 ffff 0a000002 0a000001`},
		{"port range the wrong way round", TypeTSi, `01 000000 07 06 0010 0051 0050 0a000001 0a000001`},
		{"attribute longer than the payload", TypeCP, `01 000000 0001 0004 0a0000`},
		{"attribute header cut off", TypeCP, `01 000000 0001 00`},
		{"EAP of another length than it says", TypeEAP, `01 07 0006 01`},
		{"SK inside SK", TypeSK, `00`},
		{"SKF inside SK", TypeSKF, `0001 0001 00`},
	} {
		if ps, err := ParsePayloads(c.typ, payloadOctets(unhex(t, c.body))); !isSyntaxError(err) {
			t.Errorf("%s: %+v, %v", c.name, ps, err)
		}
	}
}

// TestTolerance has what must be ignored rather than refused.
func TestTolerance(t *testing.T) {
	parseOne := func(typ PayloadType, octets string) Payload {
		t.Helper()
		ps, err := ParsePayloads(typ, unhex(t, octets))
		if err != nil || len(ps) != 1 {
			t.Fatalf("%v: %+v, %v", typ, ps, err)
		}
		return ps[0]
	}
	// Critical bit on a known type, and reserved bits (RFC 7296 §3.2).
	if n := parseOne(TypeNotify, `00 ff 0008 00 00 4000`).(*Notify); n.Kind != InitialContact {
		t.Errorf("critical notify: %+v", n)
	}
	// Selectors of unknown type are left out, whatever they hold.
	ts := parseOne(TypeTSi, `00 00 001e 02 000000 09 00 0006 0000 07 00 0010 0000 ffff 00000000 ffffffff`).(*TS)
	if len(ts.Selectors) != 1 || !ts.Selectors[0].Start.Is4() {
		t.Errorf("unknown selector: %+v", ts)
	}
	if ts := parseOne(TypeTSr, `00 00 000e 01 000000 0a 00 0006 0000`).(*TS); len(ts.Selectors) != 0 {
		t.Errorf("unknown selector: %+v", ts)
	}
	// The reserved bit of a configuration attribute.
	if cp := parseOne(TypeCP, `00 00 000c 02 000000 8001 0000`).(*CP); cp.Attributes[0].Type != InternalIP4Address {
		t.Errorf("attribute with reserved bit: %+v", cp)
	}
	// An IPv4-mapped address stays an IPv6 address.
	ts = parseOne(TypeTSi, `00 00 0030 01 000000 08 00 0028 0000 ffff`+
		`00000000000000000000ffff0a000001`+`00000000000000000000ffff0a000001`).(*TS)
	if !ts.Selectors[0].Start.Is4In6() {
		t.Errorf("mapped address: %v", ts.Selectors[0])
	}
	// A proposal for a protocol we know nothing of.
	if sa := parseOne(TypeSA, `00 00 000e 00 00 000a 01 63 02 00 0102`).(*SA); sa.Proposals[0].Protocol != 99 {
		t.Errorf("unknown protocol: %+v", sa)
	}
}

// TestTransformAttributes: a transform with attributes that are not understood is
// kept, but marked (RFC 7296 §3.3.6).
func TestTransformAttributes(t *testing.T) {
	for name, c := range map[string]struct {
		attributes string
		want       Transform
	}{
		"none":                     {``, Transform{Type: 1, ID: 20}},
		"key length":               {`800e 0080`, Transform{Type: 1, ID: 20, KeyBits: 128}},
		"key length zero":          {`800e 0000`, Transform{Type: 1, ID: 20, Unsupported: true}},
		"key length twice":         {`800e 0080 800e 0100`, Transform{Type: 1, ID: 20, KeyBits: 128, Unsupported: true}},
		"key length as long form":  {`000e 0002 0080`, Transform{Type: 1, ID: 20, Unsupported: true}},
		"unknown":                  {`8001 0080`, Transform{Type: 1, ID: 20, Unsupported: true}},
		"unknown and key length":   {`8001 0080 800e 0080`, Transform{Type: 1, ID: 20, KeyBits: 128, Unsupported: true}},
		"unknown and long, length": {`0001 0003 010203 800e 0080`, Transform{Type: 1, ID: 20, KeyBits: 128, Unsupported: true}},
		"unknown, long and empty":  {`0001 0000`, Transform{Type: 1, ID: 20, Unsupported: true}},
	} {
		attributes := unhex(t, c.attributes)
		n := byte(8 + len(attributes))
		body := append([]byte{0, 0, 0, 8 + n, 1, 1, 0, 1, 0, 0, 0, n, 1, 0, 0, 20}, attributes...)
		ps, err := ParsePayloads(TypeSA, payloadOctets(body))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := ps[0].(*SA).Proposals[0].Transforms[0]; got != c.want {
			t.Errorf("%s: got %+v", name, got)
		}
		if _, _, err := AppendPayloads(nil, ps); (err != nil) != c.want.Unsupported {
			t.Errorf("%s: appending: %v", name, err)
		}
	}
}

// TestLimits goes to each limit and one beyond.
func TestLimits(t *testing.T) {
	proposals := func(n int) []byte {
		var b []byte
		for i := range n {
			marker := byte(moreProposals)
			if i == n-1 {
				marker = lastSubstructure
			}
			b = append(b, marker, 0, 0, 8, byte(i+1), 1, 0, 0)
		}
		return payloadOctets(b)
	}
	attributes := func(n int) []byte {
		return payloadOctets(append([]byte{1, 0, 0, 0}, bytes.Repeat([]byte{0, 1, 0, 0}, n)...))
	}
	spis := func(n int) []byte {
		return payloadOctets(append([]byte{3, 4, byte(n >> 8), byte(n)}, make([]byte, 4*n)...))
	}
	payloads := func(n int) []byte {
		b := bytes.Repeat([]byte{byte(TypeVendor), 0, 0, 4}, n)
		b[len(b)-4] = 0
		return b
	}
	for _, c := range []struct {
		typ  PayloadType
		make func(int) []byte
		max  int
	}{
		{TypeSA, proposals, MaxProposals}, {TypeCP, attributes, MaxAttributes},
		{TypeDelete, spis, MaxSPIs}, {TypeVendor, payloads, MaxPayloads},
	} {
		if _, err := ParsePayloads(c.typ, c.make(c.max)); err != nil {
			t.Errorf("%v: the limit itself: %v", c.typ, err)
		}
		if _, err := ParsePayloads(c.typ, c.make(c.max+1)); !isSyntaxError(err) {
			t.Errorf("%v: beyond the limit: %v", c.typ, err)
		}
	}
}

// TestAppendRefuses: what could not be parsed again is not written.
func TestAppendRefuses(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")
	for name, ps := range map[string][]Payload{
		"no proposal":               {&SA{}},
		"too many proposals":        {&SA{Proposals: make([]Proposal, MaxProposals+1)}},
		"too many transforms":       {&SA{Proposals: []Proposal{{Protocol: ProtoIKE, Transforms: make([]Transform, 256)}}}},
		"SPI of wrong length":       {&SA{Proposals: []Proposal{{Protocol: ProtoESP, SPI: make([]byte, 8)}}}},
		"SPI of 256 octets":         {&SA{Proposals: []Proposal{{Protocol: 99, SPI: make([]byte, 256)}}}},
		"no key exchange data":      {&KE{}},
		"short nonce":               {&Nonce{Data: make([]byte, 15)}},
		"long nonce":                {&Nonce{Data: make([]byte, 257)}},
		"ID of wrong length":        {&ID{Kind: IDIPv6, Data: make([]byte, 4)}},
		"empty certificate":         {&Cert{}},
		"empty AUTH":                {&Auth{}},
		"notify SPI of 5 octets":    {&Notify{SPI: make([]byte, 5)}},
		"delete of nothing known":   {&Delete{}},
		"delete of IKE with SPIs":   {&Delete{Protocol: ProtoIKE, SPIs: []uint32{1}}},
		"too many SPIs":             {&Delete{Protocol: ProtoESP, SPIs: make([]uint32, MaxSPIs+1)}},
		"no selector":               {&TS{}},
		"too many selectors":        {&TS{Selectors: make([]TrafficSelector, 256)}},
		"selector without address":  {&TS{Selectors: []TrafficSelector{{}}}},
		"selector of two families":  {&TS{Selectors: []TrafficSelector{{Start: v4, End: v6}}}},
		"selector with zone":        {&TS{Selectors: []TrafficSelector{{Start: v6.WithZone("eth0"), End: v6.WithZone("eth0")}}}},
		"empty selector":            {&TS{Selectors: []TrafficSelector{{Start: v4.Next(), End: v4}}}},
		"attribute type of 16 bits": {&CP{Attributes: []Attribute{{Type: 0x8001}}}},
		"too many attributes":       {&CP{Attributes: make([]Attribute, MaxAttributes+1)}},
		"malformed EAP":             {&EAP{Data: []byte{1, 2, 3, 4}}},
		"unknown but known":         {&Unknown{Kind: TypeSA}},
		"unknown but none":          {&Unknown{}},
		"too long":                  {&VendorID{Data: make([]byte, 65532)}},
		"SK before others":          {&Encrypted{Inner: TypeNone, Sealed: []byte{1}}, &VendorID{}},
		"fragment 0":                {&Encrypted{Total: 2}},
		"fragment 3 of 2":           {&Encrypted{Fragment: 3, Total: 2}},
		"fragment without total":    {&Encrypted{Fragment: 1}},
		"fragment 2 with type":      {&Encrypted{Fragment: 2, Total: 2, Inner: TypeSA}},
		"too many payloads":         make([]Payload, MaxPayloads+1),
	} {
		if _, b, err := AppendPayloads(nil, ps); err == nil || b != nil {
			t.Errorf("%s: %x, %v", name, b, err)
		}
	}
}

func TestConfigurationValues(t *testing.T) {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	for _, a := range []Attribute{
		AddrAttribute(InternalIP4Address, addr("10.0.0.2")), AddrAttribute(InternalIP4DNS, addr("10.0.0.53")),
		AddrAttribute(InternalIP4Netmask, addr("255.255.255.0")), AddrAttribute(InternalIP6DNS, addr("2001:db8::53")),
	} {
		got, ok := a.Addr()
		if !ok || !bytes.Equal(got.AsSlice(), a.Value) {
			t.Errorf("%v: %v, %v", a.Type, got, ok)
		}
		for n := range len(a.Value) + 2 {
			short := Attribute{Type: a.Type, Value: make([]byte, n)}
			if _, ok := short.Addr(); ok != (n == len(a.Value)) {
				t.Errorf("%v of %d octets: %v", a.Type, n, ok)
			}
		}
	}
	for _, c := range []struct {
		typ    AttributeType
		prefix netip.Prefix
		value  string
	}{
		{InternalIP4Subnet, prefix("10.1.0.0/16"), "0a010000 ffff0000"},
		{InternalIP4Subnet, prefix("0.0.0.0/0"), "00000000 00000000"},
		{InternalIP4Subnet, prefix("10.1.2.3/32"), "0a010203 ffffffff"},
		{InternalIP6Subnet, prefix("2001:db8::/32"), "20010db8000000000000000000000000 20"},
		{InternalIP6Address, prefix("2001:db8::5/128"), "20010db8000000000000000000000005 80"},
	} {
		a := PrefixAttribute(c.typ, c.prefix)
		if !bytes.Equal(a.Value, unhex(t, c.value)) {
			t.Errorf("%v: %x", c.prefix, a.Value)
		}
		if got, ok := a.Prefix(); !ok || got != c.prefix {
			t.Errorf("%v: read back as %v, %v", c.prefix, got, ok)
		}
	}
	if got, ok := PrefixAttribute(InternalIP6Address, prefix("2001:db8::5/64")).Addr(); !ok || got != addr("2001:db8::5") {
		t.Errorf("address of a prefix: %v, %v", got, ok)
	}
	for name, a := range map[string]Attribute{
		"netmask with gaps":    {InternalIP4Subnet, unhex(t, "0a000000 ff00ff00")},
		"short IPv4 subnet":    {InternalIP4Subnet, unhex(t, "0a000000 ff0000")},
		"prefix length of 129": {InternalIP6Subnet, append(make([]byte, 16), 129)},
		"IPv6 address alone":   {InternalIP6Address, make([]byte, 16)},
		"empty":                {InternalIP6Subnet, nil},
		"another type":         {InternalIP4DNS, make([]byte, 8)},
	} {
		if got, ok := a.Prefix(); ok {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestNotifyValues(t *testing.T) {
	if m, ok := NewInvalidKE(suite.KEP384).KEMethod(); !ok || m != suite.KEP384 {
		t.Errorf("INVALID_KE_PAYLOAD: %v, %v", m, ok)
	}
	for _, n := range []*Notify{{Kind: InvalidKEPayload}, {Kind: InvalidKEPayload, Data: make([]byte, 3)}, {Kind: Cookie, Data: make([]byte, 2)}} {
		if m, ok := n.KEMethod(); ok {
			t.Errorf("%v with %x: %v", n.Kind, n.Data, m)
		}
	}
	hashes := suite.SupportedHashes()
	if got, ok := NewSignatureHashes(hashes).SignatureHashes(); !ok || !reflect.DeepEqual(got, hashes) {
		t.Errorf("SIGNATURE_HASH_ALGORITHMS: %v, %v", got, ok)
	}
	for _, n := range []*Notify{{Kind: Cookie}, {Kind: SignatureHashAlgorithms, Data: make([]byte, 3)}, {Kind: SignatureHashAlgorithms, Data: make([]byte, 2000)}} {
		if got, ok := n.SignatureHashes(); ok {
			t.Errorf("%v with %d octets: %v", n.Kind, len(n.Data), got)
		}
	}
	// The ends of the ranges, and a name from each (RFC 7296 §3.10.1).
	if !NotifyType(16383).IsError() || NotifyType(16384).IsError() {
		t.Error("wrong range of errors")
	}
	for typ, want := range map[NotifyType]string{
		14: "NO_PROPOSAL_CHOSEN", 16401: "COOKIE2", 16430: "IKEV2_FRAGMENTATION_SUPPORTED", 16431: "SIGNATURE_HASH_ALGORITHMS",
		100: "error notify 100", 30000: "status notify 30000",
	} {
		if typ.String() != want {
			t.Errorf("notify %d is called %v", uint16(typ), typ)
		}
	}
	for typ, name := range notifyNames {
		if name == "" || typ.String() != name {
			t.Errorf("notify %d has no name", uint16(typ))
		}
	}
}

func TestIDBody(t *testing.T) {
	ps, err := ParsePayloads(TypeIDi, unhex(t, "00 00 000c 02 0a0b0c 61626364"))
	if err != nil {
		t.Fatal(err)
	}
	if got := ps[0].(*ID).Body(); !bytes.Equal(got, unhex(t, "02 0a0b0c 61626364")) {
		t.Errorf("received: %x", got)
	}
	own := &ID{Kind: IDRFC822, Data: []byte("a@b")}
	if got := own.Body(); !bytes.Equal(got, unhex(t, "03 000000 614062")) {
		t.Errorf("own: %x", got)
	}
	if a, ok := (&ID{Kind: IDIPv4, Data: []byte{10, 0, 0, 1}}).Addr(); !ok || a != netip.MustParseAddr("10.0.0.1") {
		t.Errorf("address: %v, %v", a, ok)
	}
	if _, ok := own.Addr(); ok {
		t.Error("an e-mail address has an IP address")
	}
}

func TestAuthorities(t *testing.T) {
	data := append(bytes.Repeat([]byte{1}, 20), bytes.Repeat([]byte{2}, 25)...)
	got := (&CertReq{Encoding: CertX509Signature, Data: data}).Authorities()
	if len(got) != 2 || got[0][0] != 1 || got[1][19] != 2 {
		t.Errorf("got %x", got)
	}
	if got := (&CertReq{Encoding: 12, Data: data}).Authorities(); got != nil {
		t.Errorf("another encoding: %x", got)
	}
}
