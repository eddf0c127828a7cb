package esp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/suite"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// aeadVectors are whole ESP payloads with explicit IVs that are not our sequence
// numbers, so sealing is tested below the choice of the IV.
var aeadVectors = []struct {
	name                 string
	encr                 suite.Encr
	esn                  bool
	keymat               string
	spi                  uint32
	seq                  uint64
	iv, plain            string
	cipher, tag          string
	payload, nextHeader_ int // payload octets and next header in plain
}{{
	name:   "RFC 7634 appendix A",
	encr:   suite.Encr{ID: suite.EncrChaCha20Poly1305},
	keymat: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f a0a1a2a3",
	spi:    0x01020304, seq: 5, iv: "1011121314151617",
	plain: `45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec1000073627
		08090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637 01020204`,
	cipher: `24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95dfab4c02f7
		2aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da9165b82829f641e0`,
	tag:     "76aaa8266b7fb0f7b11b369907e1ad43",
	payload: 84, nextHeader_: 4,
}, {
	name:   "draft-mcgrew-gcm-test-01 case 1, 64-bit sequence number",
	encr:   suite.Encr{ID: suite.EncrAESGCM16, KeyBits: 128},
	esn:    true,
	keymat: "4c80cdefbb5d10da906ac73c3613a634 2e443b68",
	spi:    0x00004321, seq: 0x8765432100000000, iv: "4956ed7e3b244cfe",
	plain: `45000048699a000080114db7c0a80102c0a801010a9bf15638d301000001000000000000
		045f736970045f756470037369700963796265726369747902646b000021000101020201`,
	cipher: `fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34cfa2436f14a3f3cf
		65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce61bc17d768fd9732`,
	tag:     "459018148f6cbe722fd04796562dfdb4",
	payload: 68, nextHeader_: 1,
}, {
	name:   "draft-mcgrew-gcm-test-01 case 2",
	encr:   suite.Encr{ID: suite.EncrAESGCM16, KeyBits: 128},
	keymat: "feffe9928665731c6d6a8f9467308308 cafebabe",
	spi:    0x0000a5f8, seq: 10, iv: "facedbaddecaf888",
	plain: `4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d0010000010000
		00000000037369700963796265726369747902646b00000100010001`,
	cipher: `deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c3de81827c10e9a4f
		51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd1`,
	tag:     "83b70d3aa8bc6ee4c309e9d85a41ad4a",
	payload: 62, nextHeader_: 1,
}, {
	name:   "draft-mcgrew-gcm-test-01 case 3",
	encr:   suite.Encr{ID: suite.EncrAESGCM16, KeyBits: 256},
	keymat: "abbccddef00112233445566778899aababbccddef00112233445566778899aab 11223344",
	spi:    0x4a2cbfe3, seq: 2, iv: "0102030405060708",
	plain: `4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee0000000007002400020bf0000
		020405b40101040201020201`,
	cipher:  "ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763748a637985771d347f0545659f14e99def842d8e",
	tag:     "b335f4eecfdbf831824b4c4915956c96",
	payload: 48, nextHeader_: 1,
}, {
	name:   "draft-mcgrew-gcm-test-01, last 32-bit sequence number, empty payload",
	encr:   suite.Encr{ID: suite.EncrAESGCM16, KeyBits: 128},
	keymat: "7d773d00c144c525ac619d18c84a3f47 d9664267",
	spi:    0x335467ae, seq: 0xffffffff, iv: "43457e9182443bc6",
	plain: "01020201", cipher: "437f866b", tag: "cb3f699fe9b0822bac961c4504bef270",
	payload: 0, nextHeader_: 1,
}, {
	name:   "draft-mcgrew-gcm-test-01, last 64-bit sequence number",
	encr:   suite.Encr{ID: suite.EncrAESGCM16, KeyBits: 256},
	esn:    true,
	keymat: "6c6567616c697a656d6172696a75616e61616e64646f69746265666f72656961 7475726e",
	spi:    0x796b6963, seq: 0xffffffffffffffff, iv: "333021696765746d",
	plain: `45000030da3a00008001df3bc0a80005c0a800010800c6cd020007006162636465666768
		696a6b6c6d6e6f707172737401020201`,
	cipher:  "f97ab2aa356d8edce17644ac8c78e25dd24dedbb29ebf1b64a274b39b49c3a864cd3d78ca4ae68a32b42458fb57dbe821dcc63b9",
	tag:     "d0937ba2945f669368661a329fb4c053",
	payload: 48, nextHeader_: 1,
}}

func TestAEADVectors(t *testing.T) {
	for _, v := range aeadVectors {
		t.Run(v.name, func(t *testing.T) {
			sa := &SA{SPI: v.spi, Encr: v.encr, EncrKey: unhex(t, v.keymat), ESN: v.esn}
			plain := unhex(t, v.plain)
			header := binary.BigEndian.AppendUint32(nil, v.spi)
			header = binary.BigEndian.AppendUint32(header, uint32(v.seq))
			header = append(header, unhex(t, v.iv)...)
			want := bytes.Join([][]byte{header, unhex(t, v.cipher), unhex(t, v.tag)}, nil)

			tr, _, err := newTransform(sa, new(aead), nil)
			if err != nil {
				t.Fatal(err)
			}
			got := bytes.Join([][]byte{header, plain, make([]byte, 16)}, nil)
			if err := tr.(*aead).protect(new(Scratch), got, textOf(got, tr.(*aead).layout), v.seq); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("sealed\n%x, want\n%x", got, want)
			}
			checkOpens(t, sa, want, v.seq, plain[:v.payload], uint8(v.nextHeader_))
		})
	}
}

// checkOpens opens a packet, in place and into other memory, as the next one after
// its predecessor, and then sees it refused as a replay.
func checkOpens(t *testing.T, sa *SA, pkt []byte, seq uint64, payload []byte, nextHeader uint8) {
	t.Helper()
	for _, dst := range [][]byte{nil, make([]byte, 0, len(pkt))} {
		o, err := NewOpener(sa, Lifetime{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if seq > 1 {
			o.window.Accept(seq - 1)
		}
		got, err := o.Open(new(Scratch), dst, bytes.Clone(pkt))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Payload, payload) || got.NextHeader != nextHeader || got.Seq != seq || !got.Newest {
			t.Fatalf("opened %+v", got)
		}
		if _, err := o.Open(new(Scratch), dst, bytes.Clone(pkt)); err != ErrReplayed {
			t.Fatalf("second time: %v", err)
		}
	}
}

// TestCBCVectors runs the ESP packets of RFC 3602 §4, which carry no ICV, through
// our CBC with an HMAC of the packet computed apart.
func TestCBCVectors(t *testing.T) {
	const data = `08090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637`
	for _, v := range []struct {
		name, key  string
		spi        uint32
		seq        uint64
		iv         string
		payload    string
		nextHeader uint8
		cipher     string
	}{{
		"case 5", "90d382b410eeba7ad938c46cec1a82bf", 0x4321, 1, "e96e8c08ab465763fd098d45dd3ff893",
		"08000ebda70a00008e9c083db95b0700" + data, 1,
		`f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4898dc856a4699e523a55db080b59ec3a8e4b7e52
		 775b07d1db34ed9c538ab50c551b874aa269add047ad2d5913ac19b7cfbad4a6`,
	}, {
		"case 6", "90d382b410eeba7ad938c46cec1a82bf", 0x4321, 8, "69d08df7d203329db093fc4924e5bd80",
		"0800b5e8a80a0500a69c083d0b660e00777777777777777777777777", 1,
		"f51995881ec4e0c4488987ce742e8109689bb379d2d750c0d915dca346a89f75",
	}, {
		"case 7", "0123456789abcdef0123456789abcdef", 0x8765, 2, "f4e765244f6407adf13dc1380f673f37",
		"45000054090400004001f988c0a87b03c0a87bc808009f76a90a0100b49c083d02a20400" + data, 4,
		`773b5241a4c449225e4f3ce5ed611b0c237ca96cf74a93013c1b0ea1a0cf70f8e4ecaec78ac53aad7a0f022b859243c6
		 47752e94a859352b8a4d4d2decd136e5c177f132ad3fbfb2201ac9904c74ee0a109e0ca1e4dfe9d5a100b842f1c22f0d`,
	}, {
		"case 8", "0123456789abcdef0123456789abcdef", 0x8765, 5, "85d47224b5f3dd5d2101d4ea8dffab22",
		"45000044090c00004001f990c0a87b03c0a87bc80800d63caa0a0200c69c083da3de0300" + strings.Repeat("ff", 32), 4,
		`15b92683819596a8047232cc00f7048fe45318e11f8a0f62ede3c3fc61203bb50f980a08c9843fd3a1b06d5c07ff9639
		 b7eb7dfb3512e5de435e7207ed971ef3d2726d9b5ef6affc6d17a0decbb13892`,
	}} {
		for _, integ := range []suite.IntegID{suite.IntegHMACSHA256, suite.IntegHMACSHA384, suite.IntegHMACSHA512} {
			for _, esn := range []bool{false, true} {
				t.Run(v.name, func(t *testing.T) {
					sa := &SA{
						SPI: v.spi, Encr: suite.Encr{ID: suite.EncrAESCBC, KeyBits: 128}, Integ: integ, ESN: esn,
						EncrKey: unhex(t, v.key), IntegKey: bytes.Repeat([]byte{7}, integ.KeyLen()),
					}
					payload := unhex(t, v.payload)
					want := binary.BigEndian.AppendUint32(nil, v.spi)
					want = binary.BigEndian.AppendUint32(want, uint32(v.seq))
					want = append(want, unhex(t, v.iv)...)
					want = append(want, unhex(t, v.cipher)...)
					want = append(want, referenceICV(integ, sa.IntegKey, want, v.seq, esn)...)

					s, err := NewSealer(sa, Lifetime{}, bytes.NewReader(make([]byte, 64)))
					if err != nil {
						t.Fatal(err)
					}
					got := make([]byte, len(want))
					copy(got, want[:24])
					copy(got[24:], payload)
					writeTrailer(got[24+len(payload):], s.layout.padLen(len(payload)), v.nextHeader)
					if err := s.transform.(*cbc).protect(new(Scratch), got, textOf(got, s.layout), v.seq); err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(got, want) {
						t.Fatalf("sealed\n%x, want\n%x", got, want)
					}
					checkOpens(t, sa, want, v.seq, payload, v.nextHeader)
				})
			}
		}
	}
}

// textOf is what lies between IV and ICV.
func textOf(pkt []byte, l Layout) []byte { return pkt[l.Headroom() : len(pkt)-l.ICVLen] }
