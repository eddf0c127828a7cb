package message

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/suite"
)

// saInit returns an IKE_SA_INIT request as a client sends it.
func saInit() *Message {
	return &Message{
		Header: Header{SPIi: 0x0102030405060708, Major: 2, Exchange: IKESAInit, Flags: FlagInitiator},
		Payloads: []Payload{
			OfferIKE(append(suite.DefaultIKEProposals(), suite.CompatIKEProposals()...), nil),
			&KE{Method: suite.KECurve25519, Data: bytes.Repeat([]byte{5}, 32)},
			&Nonce{Data: bytes.Repeat([]byte{6}, 32)},
			&Notify{Kind: NATDetectionSourceIP, Data: bytes.Repeat([]byte{7}, 20)},
			&Notify{Kind: NATDetectionDestinationIP, Data: bytes.Repeat([]byte{8}, 20)},
			&Notify{Kind: FragmentationSupported},
			NewSignatureHashes(suite.SupportedHashes()),
			&VendorID{Data: []byte("vendor")},
		},
	}
}

// authPayloads returns the content of an IKE_AUTH request.
func authPayloads() []Payload {
	any4 := []TrafficSelector{{EndPort: 65535, Start: netip.MustParseAddr("0.0.0.0"), End: netip.MustParseAddr("255.255.255.255")}}
	return []Payload{
		&ID{Kind: IDRFC822, Data: []byte("alice@example.org")},
		&Cert{Encoding: CertX509Signature, Data: bytes.Repeat([]byte{1}, 500)},
		&CertReq{Encoding: CertX509Signature, Data: bytes.Repeat([]byte{2}, 20)},
		&ID{Responder: true, Kind: IDFQDN, Data: []byte("vpn.example.org")},
		&Auth{Method: AuthDigitalSignature, Data: bytes.Repeat([]byte{3}, 90)},
		&CP{Kind: CFGRequest, Attributes: []Attribute{{Type: InternalIP4Address}, {Type: InternalIP6Address}, {Type: InternalIP4DNS}}},
		OfferESP(suite.DefaultESPProposals(), 0xc0ffee00, false),
		&TS{Selectors: any4},
		&TS{Responder: true, Selectors: any4},
		&Notify{Kind: MOBIKESupported},
		&Notify{Kind: InitialContact},
		&EAP{Data: []byte{2, 1, 0, 4}},
		&Delete{Protocol: ProtoESP, SPIs: []uint32{300}},
		&Unknown{Kind: 54, Data: []byte{1}},
	}
}

func mustAppend(t testing.TB, m *Message) []byte {
	t.Helper()
	b, err := m.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestIKEExample is the message of RFC 7634 appendix B, before and after its
// Encrypted payload is opened.
func TestIKEExample(t *testing.T) {
	octets := unhex(t, `c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e202500000000090000004529000029
		101112131415161761 0394701f8d017f7c1292488 96b71bfe25236efd7cdc67066906315b2`)
	m, err := Parse(octets)
	if err != nil {
		t.Fatal(err)
	}
	want := Header{
		SPIi: 0xc0c1c2c3c4c5c6c7, SPIr: 0xd0d1d2d3d4d5d6d7, NextPayload: TypeSK, Major: 2,
		Exchange: Informational, MessageID: 9, Length: 69,
	}
	if m.Header != want || m.Response() || m.FromInitiator() {
		t.Errorf("header %+v", m.Header)
	}
	sk, ok := Find[*Encrypted](m.Payloads)
	if !ok || sk.Inner != TypeNotify || sk.Offset != 32 || !bytes.Equal(sk.Sealed, octets[32:]) || sk.Type() != TypeSK {
		t.Fatalf("Encrypted payload %+v", sk)
	}
	if got := mustAppend(t, m); !bytes.Equal(got, octets) {
		t.Errorf("appended as %x", got)
	}
	header := &Message{Header: m.Header}
	aad, err := header.AppendEncryptedHeader(nil, &Encrypted{Inner: TypeNotify}, len(sk.Sealed))
	if err != nil || !bytes.Equal(aad, octets[:32]) {
		t.Errorf("associated data %x, %v", aad, err)
	}
	inner, err := ParsePayloads(sk.Inner, unhex(t, "0000000c 000040010000000a"))
	if err != nil || FindNotify(inner, SetWindowSize) == nil {
		t.Errorf("content %+v, %v", inner, err)
	}
}

func TestHeader(t *testing.T) {
	octets := unhex(t, `0102030405060708 1112131415161718 00 20 25 28 00000007 0000001c`)
	h, err := ParseHeader(octets)
	want := Header{
		SPIi: 0x0102030405060708, SPIr: 0x1112131415161718, Major: 2,
		Exchange: Informational, Flags: FlagInitiator | FlagResponse, MessageID: 7, Length: 28,
	}
	if err != nil || h != want || !h.Response() || !h.FromInitiator() {
		t.Errorf("got %+v, %v", h, err)
	}
	if m, err := Parse(octets); err != nil || len(m.Payloads) != 0 {
		t.Errorf("message without payloads: %+v, %v", m, err)
	}
	for n := range octets {
		if _, err := ParseHeader(octets[:n]); !isSyntaxError(err) {
			t.Errorf("%d octets: %v", n, err)
		}
	}
	edit := func(at int, v byte) []byte {
		b := bytes.Clone(octets)
		b[at] = v
		return b
	}
	for name, b := range map[string][]byte{
		"length less than the datagram": edit(27, 27), "length more than the datagram": edit(27, 29),
		"length of 4 GiB": edit(24, 0xff), "octets behind": append(bytes.Clone(octets), 0),
	} {
		if _, err := ParseHeader(b); !isSyntaxError(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A minor version is ignored, a major one is not (RFC 7296 §2.5).
	if h, err := ParseHeader(edit(17, 0x2f)); err != nil || h.Minor != 15 {
		t.Errorf("version 2.15: %+v, %v", h, err)
	}
	for _, major := range []byte{0, 1, 3, 15} {
		h, err := ParseHeader(edit(17, major<<4))
		if v, ok := errors.AsType[*VersionError](err); !ok || v.Major != major || h.SPIi != want.SPIi || h.MessageID != 7 {
			t.Errorf("version %d: %+v, %v", major, h, err)
		}
		if _, err := Parse(edit(17, major<<4)); err == nil {
			t.Errorf("message of version %d was parsed", major)
		}
	}
	large := append(bytes.Clone(octets), make([]byte, MaxLen)...)
	copy(large[24:], []byte{0, 1, 0, 27})
	if _, err := ParseHeader(large); !isSyntaxError(err) {
		t.Errorf("message of %d octets: %v", len(large), err)
	}
}

// TestCutMessage cuts a message at each length, with the header telling the
// truth: only cuts between payloads could go unnoticed, and there the chain does
// not end.
func TestCutMessage(t *testing.T) {
	whole := mustAppend(t, saInit())
	for n := HeaderLen; n < len(whole); n++ {
		cut := bytes.Clone(whole[:n])
		cut[26], cut[27] = byte(n>>8), byte(n)
		if _, err := Parse(cut); !isSyntaxError(err) {
			t.Errorf("%d octets of %d: %v", n, len(whole), err)
		}
	}
}

func TestMessageRoundTrip(t *testing.T) {
	m := saInit()
	octets := mustAppend(t, m)
	got, err := Parse(octets)
	if err != nil {
		t.Fatal(err)
	}
	want := m.Header
	want.NextPayload, want.Length = TypeSA, uint32(len(octets))
	if got.Header != want || !reflect.DeepEqual(got.Payloads, m.Payloads) {
		t.Errorf("got %+v", got)
	}
	if b, err := m.Append([]byte("xyz")); err != nil || !bytes.Equal(b, append([]byte("xyz"), octets...)) {
		t.Errorf("appended behind other octets: %x, %v", b, err)
	}
	// Nothing refers to the datagram, which is used again for the next one.
	clear(octets)
	if !reflect.DeepEqual(got.Payloads, m.Payloads) {
		t.Error("parsed payloads refer to the input")
	}

	first, octets, err := AppendPayloads(nil, authPayloads())
	if err != nil || first != TypeIDi {
		t.Fatalf("first payload %v, %v", first, err)
	}
	ps, err := ParsePayloads(first, octets)
	if err != nil || !reflect.DeepEqual(ps, authPayloads()) {
		t.Errorf("got %+v, %v", ps, err)
	}
	clear(octets)
	if !reflect.DeepEqual(ps, authPayloads()) {
		t.Error("parsed payloads refer to the input")
	}
}

func TestNoPayloads(t *testing.T) {
	if ps, err := ParsePayloads(TypeNone, nil); err != nil || len(ps) != 0 {
		t.Errorf("empty content: %+v, %v", ps, err)
	}
	if _, err := ParsePayloads(TypeNone, []byte{0}); !isSyntaxError(err) {
		t.Errorf("octets but no payload: %v", err)
	}
	if first, b, err := AppendPayloads(nil, nil); first != TypeNone || len(b) != 0 || err != nil {
		t.Errorf("no payloads: %v %x, %v", first, b, err)
	}
}

func TestCriticalPayload(t *testing.T) {
	critical := &Message{
		Header:   Header{Exchange: Informational},
		Payloads: []Payload{&Unknown{Kind: 99, Critical: true, Data: []byte{1}}},
	}
	_, err := Parse(mustAppend(t, critical))
	e, ok := errors.AsType[*CriticalPayloadError](err)
	if !ok || e.Type != 99 {
		t.Fatalf("critical: %v", err)
	}
	n, ok := ErrorNotify(fmt.Errorf("request: %w", err))
	if !ok || n.Kind != UnsupportedCriticalPayload || !bytes.Equal(n.Data, []byte{99}) {
		t.Errorf("answer to it: %+v", n)
	}
	critical.Payloads[0].(*Unknown).Critical = false
	if m, err := Parse(mustAppend(t, critical)); err != nil || !reflect.DeepEqual(m.Payloads, critical.Payloads) {
		t.Errorf("not critical: %+v, %v", m, err)
	}
}

func TestErrorNotify(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want NotifyType // 0: none
	}{
		"syntax":         {malformed(TypeSA, "x"), InvalidSyntax},
		"higher version": {&VersionError{Major: 3}, InvalidMajorVersion},
		"IKEv1":          {&VersionError{Major: 1}, 0},
		"another error":  {errors.New("x"), 0},
	} {
		n, ok := ErrorNotify(c.err)
		if ok != (c.want != 0) || ok && n.Kind != c.want {
			t.Errorf("%s: %+v, %v", name, n, ok)
		}
	}
	for err, want := range map[error]string{
		malformed(TypeKE, "no data"):     "malformed KE payload: no data",
		malformed(TypeNone, "too short"): "malformed IKE message: too short",
		&CriticalPayloadError{Type: 99}:  "message has a critical payload of unknown type 99",
		&VersionError{Major: 1}:          "message of IKE version 1, only version 2 is supported",
	} {
		if err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
	}
}

// TestEncrypted has SK and SKF payloads, alone and behind payloads in clear.
func TestEncrypted(t *testing.T) {
	cookie := &Notify{Kind: Cookie, Data: []byte{1, 2, 3}}
	sealed := []byte("IV, ciphertext and ICV")
	for name, c := range map[string]struct {
		clear  []Payload
		sk     Encrypted
		offset int
	}{
		"SK":                      {nil, Encrypted{Inner: TypeIDi}, 32},
		"empty SK":                {nil, Encrypted{}, 32},
		"SK behind two others":    {[]Payload{cookie, &VendorID{}}, Encrypted{Inner: TypeIDi}, 28 + 11 + 4 + 4},
		"first SKF":               {nil, Encrypted{Inner: TypeIDi, Fragment: 1, Total: 3}, 36},
		"last SKF":                {nil, Encrypted{Fragment: 3, Total: 3}, 36},
		"SKF, one of one, behind": {[]Payload{cookie}, Encrypted{Inner: TypeSA, Fragment: 1, Total: 1}, 28 + 11 + 8},
	} {
		header := Header{SPIi: 1, SPIr: 2, Exchange: IKEAuth, Flags: FlagInitiator, MessageID: 1}
		b := []byte("before")
		b, err := (&Message{Header: header, Payloads: c.clear}).AppendEncryptedHeader(b, &c.sk, len(sealed))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		octets := append(b, sealed...)[len("before"):]
		if len(octets) != c.offset+len(sealed) {
			t.Errorf("%s: sealed part at %d", name, len(octets)-len(sealed))
		}
		m, err := Parse(octets)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := c.sk
		want.Sealed, want.Offset = sealed, c.offset
		if got := m.Payloads[len(m.Payloads)-1]; !reflect.DeepEqual(got, &want) || len(m.Payloads) != len(c.clear)+1 {
			t.Errorf("%s: got %+v", name, got)
		}
		if again := mustAppend(t, m); !bytes.Equal(again, octets) {
			t.Errorf("%s: appended as %x, want %x", name, again, octets)
		}
		// Not the last payload, or cut.
		if _, err := Parse(fixLength(append(bytes.Clone(octets), 0, 0, 0, 4))); !isSyntaxError(err) {
			t.Errorf("%s with another payload behind: %v", name, err)
		}
		for n := HeaderLen; n < len(octets); n++ {
			if _, err := Parse(fixLength(bytes.Clone(octets[:n]))); !isSyntaxError(err) {
				t.Errorf("%s cut to %d: %v", name, n, err)
			}
		}
	}
}

// fixLength writes the length of b into its header.
func fixLength(b []byte) []byte {
	b[24], b[25], b[26], b[27] = 0, 0, byte(len(b)>>8), byte(len(b))
	return b
}

func TestEncryptedMalformed(t *testing.T) {
	header := "0000000000000001 0000000000000002 %02x 20 23 08 00000001 00000000"
	for name, c := range map[string]struct {
		typ     PayloadType
		payload string
	}{
		"fragment 0":                         {TypeSKF, "23 00 0009 0000 0002 00"},
		"fragment 3 of 2":                    {TypeSKF, "00 00 0009 0003 0002 00"},
		"fragment 1 of 0":                    {TypeSKF, "23 00 0009 0001 0000 00"},
		"fragment 2 with type":               {TypeSKF, "23 00 0009 0002 0002 00"},
		"numbers cut off":                    {TypeSKF, "23 00 0007 0001 00"},
		"shorter than the generic header":    {TypeSK, "23 00 0003 00"},
		"shorter than what is left":          {TypeSK, "23 00 0005 00 00"},
		"generic header cut off":             {TypeSK, "23 00 00"},
		"generic header of a notify cut off": {TypeNotify, "2e 00 00"},
	} {
		octets := unhex(t, fmt.Sprintf(header, uint8(c.typ))+c.payload)
		if m, err := Parse(fixLength(octets)); !isSyntaxError(err) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}

func TestEncryptedHeaderRefuses(t *testing.T) {
	m := &Message{Header: Header{Exchange: IKEAuth}}
	for name, c := range map[string]struct {
		m      *Message
		e      *Encrypted
		sealed int
	}{
		"too long":          {m, &Encrypted{}, MaxLen - HeaderLen - 3},
		"negative":          {m, &Encrypted{}, -1},
		"fragment 2 of 1":   {m, &Encrypted{Fragment: 2, Total: 1}, 10},
		"two Encrypted":     {&Message{Payloads: []Payload{&Encrypted{Sealed: []byte{1}}}}, &Encrypted{}, 10},
		"malformed payload": {&Message{Payloads: []Payload{&Nonce{}}}, &Encrypted{}, 10},
	} {
		if b, err := c.m.AppendEncryptedHeader(nil, c.e, c.sealed); err == nil || b != nil {
			t.Errorf("%s: %x, %v", name, b, err)
		}
	}
	if _, err := m.AppendEncryptedHeader(nil, &Encrypted{}, MaxLen-HeaderLen-4); err != nil {
		t.Errorf("as long as possible: %v", err)
	}
	long := &Message{Payloads: []Payload{&VendorID{Data: make([]byte, 40000)}, &VendorID{Data: make([]byte, 40000)}}}
	if b, err := long.Append(nil); err == nil || b != nil {
		t.Error("a message of 80000 octets was written")
	}
}

func TestFind(t *testing.T) {
	ps := authPayloads()
	if id := FindID(ps, false); id == nil || id.Responder {
		t.Errorf("IDi: %+v", id)
	}
	if id := FindID(ps, true); id == nil || !id.Responder {
		t.Errorf("IDr: %+v", id)
	}
	if ts := FindTS(ps, false); ts == nil || ts.Responder {
		t.Errorf("TSi: %+v", ts)
	}
	if ts := FindTS(ps, true); ts == nil || !ts.Responder {
		t.Errorf("TSr: %+v", ts)
	}
	if FindID(nil, true) != nil || FindTS(nil, true) != nil || FindNotify(ps, Cookie) != nil || FindErrorNotify(ps) != nil {
		t.Error("found what is not there")
	}
	if _, ok := Find[*Nonce](ps); ok {
		t.Error("found a nonce")
	}
	if all := Notifies(ps); len(all) != 2 || all[0].Kind != MOBIKESupported || all[1].Kind != InitialContact {
		t.Errorf("notifies: %+v", all)
	}
	if n := FindErrorNotify(append(ps, &Notify{Kind: NoProposalChosen})); n == nil || n.Kind != NoProposalChosen {
		t.Errorf("error notify: %+v", n)
	}
}

// TestNames: every constant of this package has a name, and unknown numbers are
// shown as numbers.
func TestNames(t *testing.T) {
	for _, s := range []fmt.Stringer{
		IKESAInit, IKEAuth, CreateChildSA, Informational, ProtoNone, ProtoIKE, ProtoAH, ProtoESP,
		TransformEncr, TransformPRF, TransformInteg, TransformKE, TransformESN,
		IDIPv4, IDFQDN, IDRFC822, IDIPv6, IDDERDN, IDDERGN, IDKeyID, IDNull, CertX509Signature, CertCRL,
		AuthRSA, AuthSharedKey, AuthECDSA256, AuthECDSA384, AuthECDSA521, AuthDigitalSignature,
		CFGRequest, CFGReply, CFGSet, CFGAck, TypeNone, TypeSK, TypeSKF, InternalIP4Address, InternalDNSDomain,
	} {
		if name := s.String(); name == "" || strings.Contains(name, " type ") || strings.HasPrefix(name, "exchange ") ||
			strings.HasPrefix(name, "protocol ") || strings.HasPrefix(name, "attribute ") || strings.HasPrefix(name, "payload ") {
			t.Errorf("%#v has no name: %q", s, name)
		}
	}
	for want, s := range map[string]fmt.Stringer{
		"exchange 200": ExchangeType(200), "payload 200": PayloadType(200), "protocol 200": ProtocolID(200),
		"transform type 200": TransformType(200), "ID type 200": IDType(200), "certificate encoding 200": CertEncoding(200),
		"authentication method 200": AuthMethod(200), "CFG type 200": CPType(200), "attribute 200": AttributeType(200),
		"00000000000000ff":                          SPI(255),
		"10.0.0.1-10.0.0.9 protocol 6 ports 80-443": TrafficSelector{6, 80, 443, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.9")},
		"10.0.0.1 opaque ports":                     TrafficSelector{0, 65535, 0, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.1")},
		"::1":                                       TrafficSelector{0, 0, 65535, netip.IPv6Loopback(), netip.IPv6Loopback()},
	} {
		if got := s.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func BenchmarkParseSAInit(b *testing.B) {
	octets := mustAppend(b, saInit())
	b.ReportAllocs()
	b.SetBytes(int64(len(octets)))
	for b.Loop() {
		if _, err := Parse(octets); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendSAInit(b *testing.B) {
	m := saInit()
	buf := make([]byte, 0, 2048)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Append(buf); err != nil {
			b.Fatal(err)
		}
	}
}
