package transport

import "encoding/binary"

const (
	markerLen    = 4    // non-ESP marker, RFC 3948 §2.2
	spiLen       = 4    // ESP SPI, RFC 4303 §2.1
	ikeHeaderLen = 28   // RFC 7296 §3.1
	ikeVersionAt = 17   // major version in the upper four bits, RFC 7296 §3.1
	ikeLengthAt  = 24   // total length of the message, RFC 7296 §3.1
	keepalive    = 0xff // RFC 3948 §2.3
)

// kind is what one UDP datagram is.
type kind int

const (
	kindIKE kind = iota
	kindESP
	kindKeepalive
	kindShort
	kindShortIKE
	kindMarkedOnIKEPort
)

// classify tells what a datagram is by the port it came to and its first octets,
// and returns the part that matters: an IKE message without marker, or ESP.
func classify(port Port, data []byte) (kind, []byte) {
	if len(data) == 1 && data[0] == keepalive {
		return kindKeepalive, nil
	}
	if len(data) < markerLen {
		return kindShort, nil
	}
	if port == IKE {
		return classifyIKEPort(data)
	}
	if binary.BigEndian.Uint32(data) != 0 {
		return kindESP, data
	}
	if len(data) < markerLen+ikeHeaderLen {
		return kindShortIKE, nil
	}
	return kindIKE, data[markerLen:]
}

// classifyIKEPort handles the port without marker. Four leading zero octets may
// also be the beginning of a rare but valid initiator SPI, so a datagram counts
// as wrongly marked only when it reads as IKE behind the marker and not before.
func classifyIKEPort(data []byte) (kind, []byte) {
	if len(data) < ikeHeaderLen {
		return kindShortIKE, nil
	}
	marked := binary.BigEndian.Uint32(data) == 0
	if marked && plausibleIKE(data[markerLen:]) && !plausibleIKE(data) {
		return kindMarkedOnIKEPort, nil
	}
	return kindIKE, data
}

// plausibleIKE reports whether b has the version and the length of an IKEv2
// message.
func plausibleIKE(b []byte) bool {
	return len(b) >= ikeHeaderLen &&
		b[ikeVersionAt]>>4 == 2 &&
		uint64(binary.BigEndian.Uint32(b[ikeLengthAt:])) == uint64(len(b))
}

// stripIPv4 takes the IPv4 header off a packet from a raw socket, options
// included (RFC 791 §3.1). Raw IPv6 sockets deliver the payload alone.
func stripIPv4(p []byte) ([]byte, bool) {
	if len(p) < 20 || p[0]>>4 != 4 {
		return nil, false
	}
	header := int(p[0]&0x0f) * 4
	if header < 20 || header > len(p) {
		return nil, false
	}
	return p[header:], true
}

// rawESP checks the payload of protocol 50: SPI zero must not be on the wire
// (RFC 4303 §2.1), and shorter than an SPI is nothing at all.
func rawESP(p []byte) bool {
	return len(p) >= spiLen && binary.BigEndian.Uint32(p) != 0
}
