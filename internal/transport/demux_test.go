package transport

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// ikeMessage returns an IKEv2 message as far as the transport looks at it: SPI,
// version and length (RFC 7296 §3.1).
func ikeMessage(spi uint64, length int) []byte {
	m := make([]byte, length)
	binary.BigEndian.PutUint64(m, spi)
	m[ikeVersionAt] = 0x20
	binary.BigEndian.PutUint32(m[ikeLengthAt:], uint32(length))
	return m
}

func marked(m []byte) []byte { return append(make([]byte, markerLen), m...) }

func TestClassify(t *testing.T) {
	ike := ikeMessage(0x1122334455667788, 60)
	lowSPI := ikeMessage(0x55667788, 60) // a valid SPI that begins with four zeros
	esp := append([]byte{0, 0, 1, 0}, make([]byte, 60)...)
	tests := []struct {
		name string
		port Port
		data []byte
		kind kind
		want []byte
	}{
		{"IKE on 500", IKE, ike, kindIKE, ike},
		{"IKE on 4500", NATT, marked(ike), kindIKE, ike},
		{"marked IKE on 500", IKE, marked(ike), kindMarkedOnIKEPort, nil},
		{"unmarked IKE on 4500 reads as ESP", NATT, ike, kindESP, ike},
		{"SPI with four zeros on 500", IKE, lowSPI, kindIKE, lowSPI},
		{"SPI with four zeros on 4500", NATT, marked(lowSPI), kindIKE, lowSPI},
		{"marked SPI with four zeros on 500", IKE, marked(lowSPI), kindMarkedOnIKEPort, nil},
		{"IKEv1 on 500 is for the engine to refuse", IKE, append([]byte{1, 2, 3, 4}, make([]byte, 40)...), kindIKE,
			append([]byte{1, 2, 3, 4}, make([]byte, 40)...)},
		{"ESP on 4500", NATT, esp, kindESP, esp},
		{"shortest ESP", NATT, []byte{0, 0, 1, 0}, kindESP, []byte{0, 0, 1, 0}},
		{"keepalive on 4500", NATT, []byte{0xff}, kindKeepalive, nil},
		{"keepalive on 500", IKE, []byte{0xff}, kindKeepalive, nil},
		{"one octet that is no keepalive", NATT, []byte{0xfe}, kindShort, nil},
		{"two octets", NATT, []byte{0xff, 0xff}, kindShort, nil},
		{"three octets", IKE, []byte{0, 0, 0}, kindShort, nil},
		{"empty", NATT, nil, kindShort, nil},
		{"marker alone", NATT, make([]byte, 4), kindShortIKE, nil},
		{"marker and less than a header", NATT, marked(ike[:27]), kindShortIKE, nil},
		{"marker and a bare header", NATT, marked(ikeMessage(1, 28)), kindIKE, ikeMessage(1, 28)},
		{"less than a header on 500", IKE, ike[:27], kindShortIKE, nil},
		{"marker and less than a header on 500", IKE, marked(ike[:20]), kindShortIKE, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k, got := classify(tt.port, tt.data)
			if k != tt.kind || !bytes.Equal(got, tt.want) {
				t.Errorf("classify = %d, % x; want %d, % x", k, got, tt.kind, tt.want)
			}
		})
	}
}

func TestStripIPv4(t *testing.T) {
	header := func(first byte, n int) []byte { return append([]byte{first}, make([]byte, n-1)...) }
	esp := []byte{0, 0, 1, 0, 0, 0, 0, 1}
	tests := []struct {
		name string
		in   []byte
		want []byte
		ok   bool
	}{
		{"plain", append(header(0x45, 20), esp...), esp, true},
		{"with options", append(header(0x47, 28), esp...), esp, true},
		{"empty payload", header(0x45, 20), nil, true},
		{"cut header", header(0x45, 19), nil, false},
		{"header longer than packet", header(0x46, 20), nil, false},
		{"header length below minimum", append(header(0x44, 20), esp...), nil, false},
		{"version 6", append(header(0x65, 20), esp...), nil, false},
		{"empty", nil, nil, false},
	}
	for _, tt := range tests {
		got, ok := stripIPv4(tt.in)
		if ok != tt.ok || !bytes.Equal(got, tt.want) {
			t.Errorf("%s: stripIPv4 = % x, %v; want % x, %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

func FuzzClassify(f *testing.F) {
	ike := ikeMessage(0x1122334455667788, 60)
	for _, port := range []bool{false, true} {
		for _, data := range [][]byte{nil, {0xff}, {0, 0, 0, 0}, ike, marked(ike), ikeMessage(5, 28), {0, 0, 1, 0, 0, 0, 0, 1}} {
			f.Add(port, data)
		}
	}
	f.Fuzz(func(t *testing.T, natt bool, data []byte) {
		port := IKE
		if natt {
			port = NATT
		}
		k, content := classify(port, data)
		switch k {
		case kindIKE:
			if len(content) < ikeHeaderLen {
				t.Errorf("IKE of %d octets", len(content))
			}
			if want := len(data) - map[Port]int{NATT: markerLen}[port]; len(content) != want {
				t.Errorf("IKE has %d octets of %d", len(content), len(data))
			}
		case kindESP:
			if port != NATT || len(content) != len(data) || binary.BigEndian.Uint32(content) == 0 {
				t.Errorf("not ESP: port %s, % x", port, content)
			}
		default:
			if content != nil {
				t.Errorf("kind %d with content", k)
			}
		}
		if esp, ok := stripIPv4(data); ok && len(esp) > len(data)-20 {
			t.Errorf("stripped header has %d octets", len(data)-len(esp))
		}
	})
}
