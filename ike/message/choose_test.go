package message

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/suite"
)

func ikeProposals(t testing.TB, s string) []suite.IKEProposal {
	t.Helper()
	ps, err := suite.ParseIKEProposals(s)
	if err != nil {
		t.Fatal(err)
	}
	return ps
}

func espProposals(t testing.TB, s string) []suite.ESPProposal {
	t.Helper()
	ps, err := suite.ParseESPProposals(s)
	if err != nil {
		t.Fatal(err)
	}
	return ps
}

const testSPI = 0x01020304

// roundTrip sends an SA payload over the wire, so that the tests see what a peer
// sees.
func roundTrip(t testing.TB, sa *SA) *SA {
	t.Helper()
	first, b, err := AppendPayloads(nil, []Payload{sa})
	if err != nil {
		t.Fatal(err)
	}
	ps, err := ParsePayloads(first, b)
	if err != nil {
		t.Fatal(err)
	}
	return ps[0].(*SA)
}

// TestNegotiateIKE lets two configurations meet, and the initiator check what the
// responder chose.
func TestNegotiateIKE(t *testing.T) {
	for _, c := range []struct {
		initiator, responder string
		sent                 []suite.KEID
		number               uint8
		want                 string // empty: none
	}{
		{"modern", "modern", nil, 1, "aes256gcm16-prfsha256-x25519"},
		{"modern", "modern,compat", nil, 1, "aes256gcm16-prfsha256-x25519"},
		{"compat", "modern,compat", nil, 1, "aes256gcm16-prfsha256-ecp521"},
		{"aes256-sha256-modp2048", "modern,compat", nil, 1, "aes256-sha256-prfsha256-modp2048"},
		{"aes256-sha256-modp2048", "modern", nil, 0, ""},
		// The responder's order decides: among proposals, and among algorithms.
		{"aes128-sha256-ecp256,aes256gcm16-prfsha256-x25519", "modern,compat", nil, 2, "aes256gcm16-prfsha256-x25519"},
		{"aes128gcm16-aes256gcm16-prfsha512-prfsha256-ecp384-x25519", "modern", nil, 1, "aes256gcm16-prfsha256-x25519"},
		{"aes256gcm16-prfsha256-x25519", "aes128gcm16-aes256gcm16-prfsha384-prfsha256-ecp256-x25519", nil, 1, "aes256gcm16-prfsha256-x25519"},
		// The method at hand is taken if it is acceptable.
		{"aes256gcm16-prfsha256-ecp384-x25519", "modern", []suite.KEID{suite.KEP384}, 1, "aes256gcm16-prfsha256-ecp384"},
		{"aes256gcm16-prfsha256-modp2048-x25519", "modern", []suite.KEID{suite.KEModp2048}, 1, "aes256gcm16-prfsha256-x25519"},
		{"aes256gcm16-prfsha256-ecp256-x25519", "modern", []suite.KEID{suite.KEP384}, 1, "aes256gcm16-prfsha256-x25519"}, // sent, not offered
		// Nothing in common, in each type.
		{"aes256gcm16-prfsha256-x25519", "aes128gcm16-prfsha256-x25519", nil, 0, ""},
		{"aes256gcm16-prfsha256-x25519", "aes256gcm16-prfsha384-x25519", nil, 0, ""},
		{"aes256gcm16-prfsha256-x25519", "aes256gcm16-prfsha256-ecp256", nil, 0, ""},
		{"aes256-sha256-x25519", "aes256-sha384-prfsha256-x25519", nil, 0, ""},
		{"aes256-sha256-x25519", "aes256gcm16-prfsha256-x25519", nil, 0, ""},
	} {
		name := c.initiator + " to " + c.responder
		for _, spi := range [][]byte{nil, {1, 2, 3, 4, 5, 6, 7, 8}} {
			offer := OfferIKE(ikeProposals(t, c.initiator), spi)
			offered := roundTrip(t, offer).Proposals
			number, alg, err := ChooseIKE(offered, ikeProposals(t, c.responder), c.sent...)
			if c.want == "" {
				if _, ok := errors.AsType[*NoProposalError](err); !ok {
					t.Errorf("%s: got %v, %v", name, alg, err)
				}
				continue
			}
			if err != nil || number != c.number || alg.String() != c.want {
				t.Errorf("%s: got %d %v, %v", name, number, alg, err)
				continue
			}
			answer := roundTrip(t, AnswerIKE(offered, number, alg, spi))
			if got, err := CheckIKEChoice(offer.Proposals, answer); err != nil || got != alg {
				t.Errorf("%s: initiator sees %v, %v", name, got, err)
			}
		}
	}
}

func TestNegotiateESP(t *testing.T) {
	for _, c := range []struct {
		initiator, responder string
		withKE               bool
		sent                 []suite.KEID
		number               uint8
		want                 string
	}{
		{"modern", "modern", false, nil, 1, "aes256gcm16-esn"},
		{"modern", "modern", true, nil, 1, "aes256gcm16-x25519-esn"},
		{"modern,compat", "modern,compat", true, []suite.KEID{suite.KEP256}, 1, "aes256gcm16-ecp256-esn"},
		// A peer without perfect forward secrecy, on either side.
		{"aes256gcm16", "modern", true, nil, 1, "aes256gcm16-esn"},
		{"modern", "aes256gcm16", true, nil, 2, "aes256gcm16-esn"},
		{"aes256gcm16-x25519", "aes256gcm16", true, nil, 0, ""},
		{"aes256gcm16", "aes256gcm16-x25519", true, nil, 0, ""},
		{"aes256gcm16-x25519", "aes256gcm16", false, nil, 1, "aes256gcm16-esn"},
		{"aes256gcm16", "aes256gcm16-x25519", false, nil, 1, "aes256gcm16-esn"},
		// Sequence numbers.
		{"aes256gcm16-noesn", "modern", false, nil, 1, "aes256gcm16-noesn"},
		{"aes256gcm16-esn", "modern", false, nil, 1, "aes256gcm16-esn"},
		{"aes256gcm16-esn", "aes256gcm16-noesn", false, nil, 0, ""},
		{"modern", "aes256gcm16-noesn-esn", false, nil, 1, "aes256gcm16-noesn"},
		// CBC.
		{"aes256-sha256-modp2048", "modern,compat", true, nil, 1, "aes256-sha256-modp2048-esn"},
		{"aes128-sha512-sha256", "modern,compat", false, nil, 1, "aes128-sha256-esn"},
		{"aes128-sha256", "modern", false, nil, 0, ""},
	} {
		name := c.initiator + " to " + c.responder
		offer := OfferESP(espProposals(t, c.initiator), testSPI, c.withKE)
		offered := roundTrip(t, offer).Proposals
		number, alg, err := ChooseESP(offered, espProposals(t, c.responder), !c.withKE, c.sent...)
		if c.want == "" {
			if _, ok := errors.AsType[*NoProposalError](err); !ok {
				t.Errorf("%s: got %v, %v", name, alg, err)
			}
			continue
		}
		if err != nil || number != c.number || alg.String() != c.want {
			t.Errorf("%s: got %d %v, %v", name, number, alg, err)
			continue
		}
		answer := roundTrip(t, AnswerESP(offered, number, alg, testSPI+1))
		if got, spi, err := CheckESPChoice(offer.Proposals, answer); err != nil || got != alg || spi != testSPI+1 {
			t.Errorf("%s: initiator sees %v, SPI %x, %v", name, got, spi, err)
		}
	}
}

func TestOffers(t *testing.T) {
	// In IKE_AUTH the two modern proposals are the same.
	if sa := OfferESP(suite.DefaultESPProposals(), testSPI, false); len(sa.Proposals) != 1 {
		t.Errorf("%d proposals in IKE_AUTH", len(sa.Proposals))
	}
	sa := OfferESP(suite.DefaultESPProposals(), testSPI, true)
	if len(sa.Proposals) != 2 || sa.Proposals[0].Number != 1 || sa.Proposals[1].Number != 2 {
		t.Errorf("proposals in CREATE_CHILD_SA: %+v", sa.Proposals)
	}
	// A Key Length attribute where there has to be one, and only there (RFC 7296 §3.3.5).
	for _, p := range OfferIKE(append(suite.DefaultIKEProposals(), suite.CompatIKEProposals()...), nil).Proposals {
		for _, tr := range p.Transforms {
			aes := tr.Type == TransformEncr && tr.ID != uint16(suite.EncrChaCha20Poly1305)
			if (tr.KeyBits != 0) != aes {
				t.Errorf("%v has a key length of %d", tr, tr.KeyBits)
			}
		}
	}
}

// espOffer returns a good proposal, which tests then spoil.
func espOffer() Proposal {
	return Proposal{Number: 1, Protocol: ProtoESP, SPI: []byte{1, 2, 3, 4}, Transforms: []Transform{
		{Type: TransformEncr, ID: 20, KeyBits: 256}, {Type: TransformESN, ID: 0},
	}}
}

func ikeOffer() Proposal {
	return Proposal{Number: 1, Protocol: ProtoIKE, Transforms: []Transform{
		{Type: TransformEncr, ID: 20, KeyBits: 256}, {Type: TransformPRF, ID: 5}, {Type: TransformKE, ID: 31},
	}}
}

// TestStrangeOffersIKE has what RFC 7296 §3.3.6 and RFC 5282 §8 say about offers
// that are not as ours.
func TestStrangeOffersIKE(t *testing.T) {
	add := func(ts ...Transform) func(*Proposal) {
		return func(p *Proposal) { p.Transforms = append(p.Transforms, ts...) }
	}
	without := func(typ TransformType) func(*Proposal) {
		return func(p *Proposal) {
			var rest []Transform
			for _, tr := range p.Transforms {
				if tr.Type != typ {
					rest = append(rest, tr)
				}
			}
			p.Transforms = rest
		}
	}
	for name, c := range map[string]struct {
		spoil func(*Proposal)
		ok    bool
	}{
		"as it is":                      {func(*Proposal) {}, true},
		"INTEG NONE beside AEAD":        {add(Transform{Type: TransformInteg}), true},
		"INTEG beside AEAD":             {add(Transform{Type: TransformInteg, ID: 12}), false},
		"INTEG and NONE beside AEAD":    {add(Transform{Type: TransformInteg, ID: 12}, Transform{Type: TransformInteg}), true},
		"unknown transform type":        {add(Transform{Type: 6, ID: 36}), false},
		"ESN for IKE":                   {add(Transform{Type: TransformESN}), false},
		"unknown cipher besides":        {add(Transform{Type: TransformEncr, ID: 3}), true},
		"unknown method besides":        {add(Transform{Type: TransformKE, ID: 2}), true},
		"no cipher":                     {without(TransformEncr), false},
		"no function":                   {without(TransformPRF), false},
		"no method":                     {without(TransformKE), false},
		"cipher without key length":     {func(p *Proposal) { p.Transforms[0].KeyBits = 0 }, false},
		"cipher with unknown attribute": {func(p *Proposal) { p.Transforms[0].Unsupported = true }, false},
		"method with a key length":      {func(p *Proposal) { p.Transforms[2].KeyBits = 256 }, false},
		"method NONE only":              {func(p *Proposal) { p.Transforms[2].ID = 0 }, false},
		"another protocol":              {func(p *Proposal) { p.Protocol = ProtoESP }, false},
		"no transforms":                 {func(p *Proposal) { p.Transforms = nil }, false},
	} {
		p := ikeOffer()
		c.spoil(&p)
		_, alg, err := ChooseIKE([]Proposal{p}, suite.DefaultIKEProposals())
		if (err == nil) != c.ok {
			t.Errorf("%s: %v, %v", name, alg, err)
		}
		// The next proposal is processed as usual.
		q := ikeOffer()
		q.Number = 2
		if number, _, err := ChooseIKE([]Proposal{p, q}, suite.DefaultIKEProposals()); err != nil || !c.ok && number != 2 {
			t.Errorf("%s, then a good one: %d, %v", name, number, err)
		}
		if !c.ok {
			continue
		}
		// The answer has INTEG NONE where it was offered (RFC 7296 §2.7).
		answer := AnswerIKE([]Proposal{p}, 1, alg, nil).Proposals[0]
		if answer.hasType(TransformInteg) != p.hasType(TransformInteg) {
			t.Errorf("%s: answer %v", name, answer.Transforms)
		}
	}
	if _, _, err := ChooseIKE(nil, suite.DefaultIKEProposals()); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("no offer: %v", err)
	}
	// AEAD and CBC in one proposal, with integrity for the latter: only CBC is
	// possible, as there has to be a choice of each type.
	mixed := Proposal{Number: 1, Protocol: ProtoIKE, Transforms: []Transform{
		{Type: TransformEncr, ID: 20, KeyBits: 256}, {Type: TransformEncr, ID: 12, KeyBits: 256},
		{Type: TransformPRF, ID: 5}, {Type: TransformInteg, ID: 12}, {Type: TransformKE, ID: 31},
	}}
	_, alg, err := ChooseIKE([]Proposal{mixed}, append(suite.DefaultIKEProposals(), suite.CompatIKEProposals()...))
	if err != nil || alg.String() != "aes256-sha256-prfsha256-x25519" {
		t.Errorf("mixed proposal: %v, %v", alg, err)
	}
}

// TestMisnumberedOffers: a number names one proposal, or none.
func TestMisnumberedOffers(t *testing.T) {
	offer := func(numbers ...uint8) (ps []Proposal) {
		for _, n := range numbers {
			p := ikeOffer()
			p.Number = n
			ps = append(ps, p)
		}
		return ps
	}
	bad := offer(2, 2)
	bad[0].Protocol = ProtoESP
	for _, ps := range [][]Proposal{offer(2), offer(0), bad, offer(2, 1)} {
		if number, _, err := ChooseIKE(ps, suite.DefaultIKEProposals()); err == nil {
			t.Errorf("chose number %d of %v", number, ps)
		}
	}
	ps := offer(1, 2, 2)
	ps[0].Protocol = ProtoESP
	if number, _, err := ChooseIKE(ps, suite.DefaultIKEProposals()); err != nil || number != 2 {
		t.Errorf("chose number %d: %v", number, err)
	}
}

func TestStrangeOffersESP(t *testing.T) {
	for name, c := range map[string]struct {
		spoil      func(*Proposal)
		auth, pfs  bool // acceptable in IKE_AUTH, and where we ask for PFS
		child, esn bool // acceptable without PFS, and with ESN
	}{
		"as it is": {func(*Proposal) {}, true, false, true, false},
		"KE":       {func(p *Proposal) { p.Transforms = append(p.Transforms, Transform{Type: TransformKE, ID: 31}) }, true, true, false, false},
		"KE or NONE": {func(p *Proposal) {
			p.Transforms = append(p.Transforms, Transform{Type: TransformKE, ID: 31}, Transform{Type: TransformKE})
		}, true, true, true, false},
		"unknown KE":                {func(p *Proposal) { p.Transforms = append(p.Transforms, Transform{Type: TransformKE, ID: 2}) }, true, false, false, false},
		"INTEG NONE":                {func(p *Proposal) { p.Transforms = append(p.Transforms, Transform{Type: TransformInteg}) }, true, false, true, false},
		"INTEG":                     {func(p *Proposal) { p.Transforms = append(p.Transforms, Transform{Type: TransformInteg, ID: 12}) }, false, false, false, false},
		"no ESN transform":          {func(p *Proposal) { p.Transforms = p.Transforms[:1] }, false, false, false, false},
		"ESN only":                  {func(p *Proposal) { p.Transforms[1].ID = 1 }, true, false, true, true},
		"unknown ESN":               {func(p *Proposal) { p.Transforms[1].ID = 2 }, false, false, false, false},
		"PRF":                       {func(p *Proposal) { p.Transforms = append(p.Transforms, Transform{Type: TransformPRF, ID: 5}) }, false, false, false, false},
		"unknown type":              {func(p *Proposal) { p.Transforms = append(p.Transforms, Transform{Type: 7, ID: 0}) }, false, false, false, false},
		"reserved SPI":              {func(p *Proposal) { p.SPI = []byte{0, 0, 0, 255} }, false, false, false, false},
		"no SPI":                    {func(p *Proposal) { p.SPI = nil }, false, false, false, false},
		"AH":                        {func(p *Proposal) { p.Protocol = ProtoAH }, false, false, false, false},
		"numbers that do not count": {func(p *Proposal) { p.Number = 0 }, false, false, false, false},
	} {
		p := espOffer()
		c.spoil(&p)
		offered := []Proposal{p}
		try := func(ours string, ignoreKE, want bool) {
			t.Helper()
			_, alg, err := ChooseESP(offered, espProposals(t, ours), ignoreKE)
			if (err == nil) != want {
				t.Errorf("%s, %s: %v, %v", name, ours, alg, err)
			}
			if err == nil && ignoreKE && alg.KE != suite.KENone {
				t.Errorf("%s: %v in IKE_AUTH", name, alg)
			}
			if err == nil {
				if answer := AnswerESP(offered, 1, alg, testSPI).Proposals[0]; answer.offers(Transform{Type: TransformKE}) !=
					(alg.KE == suite.KENone && p.offers(Transform{Type: TransformKE})) {
					t.Errorf("%s, %s: answer %v", name, ours, answer.Transforms)
				}
			}
		}
		try("aes256gcm16", true, c.auth)
		try("aes256gcm16-x25519", true, c.auth)
		try("aes256gcm16-x25519", false, c.pfs)
		try("aes256gcm16", false, c.child)
		try("aes256gcm16-esn", false, c.esn)
	}
	// Our own NONE: perfect forward secrecy if the peer likes.
	either := espProposals(t, "aes256gcm16-x25519")
	either[0].KE = append(either[0].KE, suite.KENone)
	if _, alg, err := ChooseESP([]Proposal{espOffer()}, either, false); err != nil || alg.KE != suite.KENone {
		t.Errorf("x25519 or none: %v, %v", alg, err)
	}
}

// TestCheckChoice has answers that an initiator must not accept.
func TestCheckChoice(t *testing.T) {
	offer := OfferESP(espProposals(t, "aes256gcm16-aes128gcm16-x25519,aes256-sha256-sha384"), testSPI, true)
	gcm, ke, esn := Transform{Type: TransformEncr, ID: 20, KeyBits: 128}, keTransform(suite.KECurve25519), esnTransform(true)
	answer := func(number uint8, ts ...Transform) *SA {
		return &SA{Proposals: []Proposal{{Number: number, Protocol: ProtoESP, SPI: []byte{9, 9, 9, 9}, Transforms: ts}}}
	}
	good := answer(1, gcm, ke, esn)
	if alg, spi, err := CheckESPChoice(offer.Proposals, good); err != nil || alg.String() != "aes128gcm16-x25519-esn" || spi != 0x09090909 {
		t.Fatalf("good answer: %v, %x, %v", alg, spi, err)
	}
	spoiled := func(spoil func(*Proposal)) *SA {
		sa := answer(1, gcm, ke, esn)
		spoil(&sa.Proposals[0])
		return sa
	}
	for name, sa := range map[string]*SA{
		"no proposal":            {},
		"two proposals":          {Proposals: append(good.Proposals, good.Proposals...)},
		"proposal not offered":   answer(3, gcm, ke, esn),
		"two ciphers":            answer(1, gcm, Transform{Type: TransformEncr, ID: 20, KeyBits: 256}, ke, esn),
		"the same cipher twice":  answer(1, gcm, gcm, ke, esn),
		"cipher not offered":     answer(1, Transform{Type: TransformEncr, ID: 28}, ke, esn),
		"key length not offered": answer(1, Transform{Type: TransformEncr, ID: 20, KeyBits: 192}, ke, esn),
		"no cipher":              answer(1, ke, esn),
		"no method":              answer(1, gcm, esn),
		"method not offered":     answer(1, gcm, keTransform(suite.KEP256), esn),
		"method NONE":            answer(1, gcm, keTransform(suite.KENone), esn),
		"no ESN":                 answer(1, gcm, ke),
		"type not offered":       answer(1, gcm, ke, esn, integTransform(suite.IntegNone)),
		"parts of two proposals": answer(2, gcm, esn),
		"CBC without integrity":  answer(2, Transform{Type: TransformEncr, ID: 12, KeyBits: 256}, esn),
		"another protocol":       spoiled(func(p *Proposal) { p.Protocol = ProtoAH }),
		"reserved SPI":           spoiled(func(p *Proposal) { p.SPI = []byte{0, 0, 0, 1} }),
		"SPI of 8 octets":        spoiled(func(p *Proposal) { p.SPI = make([]byte, 8) }),
		"transform with extras":  spoiled(func(p *Proposal) { p.Transforms[0].Unsupported = true }),
		"unknown transform type": spoiled(func(p *Proposal) { p.Transforms = append(p.Transforms, Transform{Type: 6}) }),
	} {
		if alg, _, err := CheckESPChoice(offer.Proposals, sa); !errors.Is(err, ErrChoice) {
			t.Errorf("%s: %v, %v", name, alg, err)
		}
	}
	ikeOffer := OfferIKE(ikeProposals(t, "modern,aes256-sha256-x25519"), nil)
	for name, ts := range map[string][]Transform{
		"no function":           {encrTransform(suite.Encr{ID: 20, KeyBits: 256}), ke},
		"no method":             {encrTransform(suite.Encr{ID: 20, KeyBits: 256}), prfTransform(5)},
		"CBC without integrity": {encrTransform(suite.Encr{ID: 12, KeyBits: 256}), prfTransform(5), ke},
	} {
		for number := range uint8(3) {
			sa := &SA{Proposals: []Proposal{{Number: number, Protocol: ProtoIKE, Transforms: ts}}}
			if alg, err := CheckIKEChoice(ikeOffer.Proposals, sa); !errors.Is(err, ErrChoice) {
				t.Errorf("%s: %v, %v", name, alg, err)
			}
		}
	}
	// A NONE that was offered may be left out, or be there.
	none := espOffer()
	none.Transforms = append(none.Transforms, Transform{Type: TransformKE}, Transform{Type: TransformInteg})
	for _, ts := range [][]Transform{none.Transforms[:2], none.Transforms[:3], none.Transforms} {
		if alg, _, err := CheckESPChoice([]Proposal{none}, answer(1, ts...)); err != nil || alg.String() != "aes256gcm16-noesn" {
			t.Errorf("%v: %v, %v", ts, alg, err)
		}
	}
}

// TestNoProposalError: both sides are shown, and a long offer is cut.
func TestNoProposalError(t *testing.T) {
	offered := []Proposal{{Number: 1, Protocol: ProtoIKE, Transforms: []Transform{
		{Type: TransformEncr, ID: 3}, {Type: TransformPRF, ID: 2}, {Type: TransformInteg, ID: 2}, {Type: TransformKE, ID: 2}, {Type: 9, ID: 1},
	}}, {Number: 2}}
	_, _, err := ChooseIKE(offered, ikeProposals(t, "aes256gcm16-prfsha256-x25519"))
	want := "no acceptable proposal: the peer offers ENCR_3-PRF_2-INTEG_2-KE_2-transform type 9_1,; accepted are aes256gcm16-prfsha256-x25519"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	long := Proposal{Number: 1, Protocol: ProtoIKE, Transforms: make([]Transform, 255)}
	_, _, err = ChooseIKE([]Proposal{long, long}, ikeProposals(t, "aes256gcm16-prfsha256-x25519"))
	if n := len(err.Error()); n > 2000 || !strings.Contains(err.Error(), "...") {
		t.Errorf("error of %d characters", n)
	}
	if reflect.TypeOf(err) != reflect.TypeFor[*NoProposalError]() {
		t.Errorf("error of type %T", err)
	}
}

func BenchmarkChooseIKE(b *testing.B) {
	offered := saInit().Payloads[0].(*SA).Proposals
	ours := append(suite.DefaultIKEProposals(), suite.CompatIKEProposals()...)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := ChooseIKE(offered, ours, suite.KECurve25519); err != nil {
			b.Fatal(err)
		}
	}
}
