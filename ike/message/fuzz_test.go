package message

import (
	"bytes"
	"encoding/hex"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/suite"
)

// seeds adds messages to a corpus: of our own making, and those in testdata that
// other implementations sent.
func seedMessages(f *testing.F) {
	f.Helper()
	f.Add(mustAppend(f, saInit()))
	f.Add(mustAppend(f, &Message{Header: Header{Exchange: IKEAuth}, Payloads: authPayloads()}))
	f.Add(mustAppend(f, &Message{Header: Header{Exchange: Informational}, Payloads: []Payload{
		&Encrypted{Inner: TypeDelete, Sealed: make([]byte, 40)},
	}}))
	f.Add(mustAppend(f, &Message{Header: Header{Exchange: IKEAuth}, Payloads: []Payload{
		&Notify{Kind: Cookie, Data: []byte{1}}, &Encrypted{Inner: TypeIDi, Fragment: 1, Total: 2, Sealed: make([]byte, 40)},
	}}))
	for _, g := range golden {
		f.Add(mustAppend(f, &Message{Header: Header{Exchange: Informational}, Payloads: []Payload{g.payload}}))
	}
	for _, b := range captured(f) {
		f.Add(b)
	}
}

// captured returns the messages in testdata/captures.txt.
func captured(t testing.TB) [][]byte {
	t.Helper()
	data, err := os.ReadFile("testdata/captures.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		b, err := hex.DecodeString(line)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// FuzzParse checks facts about whatever parses.
func FuzzParse(f *testing.F) {
	seedMessages(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		m, err := Parse(b)
		if !bytes.Equal(b, before) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			if m != nil {
				t.Fatal("a message was returned with an error")
			}
			return
		}
		if int(m.Length) != len(b) || m.Major != 2 || len(m.Payloads) > MaxPayloads {
			t.Fatalf("header %+v, %d payloads", m.Header, len(m.Payloads))
		}
		if (m.NextPayload == TypeNone) != (len(m.Payloads) == 0) || len(m.Payloads) > 0 && m.Payloads[0].Type() != m.NextPayload {
			t.Fatalf("next payload %v, payloads %+v", m.NextPayload, m.Payloads)
		}
		if e, ok := Find[*Encrypted](m.Payloads); ok {
			if m.Payloads[len(m.Payloads)-1] != Payload(e) || !bytes.Equal(b[e.Offset:], e.Sealed) {
				t.Fatalf("Encrypted payload %+v", e)
			}
		}
	})
}

// FuzzParsePayloads is about the content of Encrypted payloads, and what is then
// done with it.
func FuzzParsePayloads(f *testing.F) {
	first, b, err := AppendPayloads(nil, authPayloads())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(byte(first), b)
	for _, g := range golden {
		f.Add(byte(g.payload.Type()), payloadOctets(unhex(f, g.body)))
	}
	ikeOurs := append(suite.DefaultIKEProposals(), suite.CompatIKEProposals()...)
	espOurs := append(suite.DefaultESPProposals(), suite.CompatESPProposals()...)
	f.Fuzz(func(t *testing.T, first byte, b []byte) {
		ps, err := ParsePayloads(PayloadType(first), b)
		if err != nil {
			if ps != nil {
				t.Fatal("payloads were returned with an error")
			}
			return
		}
		for _, p := range ps {
			switch p := p.(type) {
			case *Encrypted:
				t.Fatal("an Encrypted payload inside another one")
			case *Unknown:
				if p.Critical {
					t.Fatal("a critical payload got through")
				}
			case *SA:
				checkFuzzedSA(t, p, ikeOurs, espOurs)
			case *ID:
				p.Addr()
				if !bytes.HasSuffix(p.Body(), p.Data) {
					t.Fatalf("body of %+v", p)
				}
			case *CP:
				for _, a := range p.Attributes {
					a.Addr()
					a.Prefix()
				}
			case *TS:
				for _, s := range p.Selectors {
					if s.Start.BitLen() != s.End.BitLen() || s.End.Less(s.Start) {
						t.Fatalf("selector %v", s)
					}
				}
			case *CertReq:
				p.Authorities()
			case *Notify:
				p.KEMethod()
				p.SignatureHashes()
			}
		}
	})
}

// checkFuzzedSA: what is chosen from an offer is one that the offering side takes.
func checkFuzzedSA(t *testing.T, sa *SA, ikeOurs []suite.IKEProposal, espOurs []suite.ESPProposal) {
	if number, alg, err := ChooseIKE(sa.Proposals, ikeOurs); err == nil {
		answer := AnswerIKE(sa.Proposals, number, alg, sa.Proposals[number-1].SPI)
		if got, err := CheckIKEChoice(sa.Proposals, answer); err != nil || got != alg {
			t.Fatalf("chose %v, seen as %v, %v", alg, got, err)
		}
	} else if err.Error() == "" {
		t.Fatal("empty error")
	}
	if number, alg, err := ChooseESP(sa.Proposals, espOurs, false); err == nil {
		got, spi, err := CheckESPChoice(sa.Proposals, AnswerESP(sa.Proposals, number, alg, 256))
		if err != nil || got != alg || spi != 256 {
			t.Fatalf("chose %v, seen as %v, %v", alg, got, err)
		}
	}
}

// FuzzRoundTrip parses, appends and parses again: what was understood must come
// out the same, and be written in one way only.
func FuzzRoundTrip(f *testing.F) {
	seedMessages(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		out, err := m.Append(nil)
		if err != nil {
			if !unwritable(m.Payloads) {
				t.Fatalf("parsed but not written: %v", err)
			}
			return
		}
		again, err := Parse(out)
		if err != nil {
			t.Fatalf("written but not parsed: %v", err)
		}
		// Selectors and attributes that are not understood do not come back.
		again.Length = m.Length
		fixOffsets(m, again)
		if !reflect.DeepEqual(m, again) {
			t.Fatalf("first %+v, then %+v", m, again)
		}
		if out2, err := again.Append(nil); err != nil || !bytes.Equal(out, out2) {
			t.Fatalf("written as %x, then as %x, %v", out, out2, err)
		}
	})
}

// unwritable says whether there is a payload of which we understood a part only,
// and nothing is left to write.
func unwritable(ps []Payload) bool {
	for _, p := range ps {
		switch p := p.(type) {
		case *TS:
			if len(p.Selectors) == 0 {
				return true
			}
		case *SA:
			for _, proposal := range p.Proposals {
				for _, tr := range proposal.Transforms {
					if tr.Unsupported {
						return true
					}
				}
			}
		}
	}
	return false
}

// fixOffsets allows for payloads in clear that became shorter.
func fixOffsets(m, again *Message) {
	e, ok := Find[*Encrypted](m.Payloads)
	if e2, ok2 := Find[*Encrypted](again.Payloads); ok && ok2 {
		e2.Offset = e.Offset
	}
}

// TestCaptures: messages of other implementations are understood, and come out
// octet by octet as they were.
func TestCaptures(t *testing.T) {
	for i, b := range captured(t) {
		m, err := Parse(b)
		if err != nil {
			t.Errorf("message %d: %v", i, err)
			continue
		}
		if out, err := m.Append(nil); err != nil || !bytes.Equal(out, b) {
			t.Errorf("message %d: written as %x, %v, want %x", i, out, err, b)
		}
	}
}
