package message

import (
	"errors"
	"fmt"
	"net/netip"
)

// idHeaderLen is type and reserved octets of ID, AUTH and CP payloads.
const idHeaderLen = 4

// Type implements Payload.
func (id *ID) Type() PayloadType {
	if id.Responder {
		return TypeIDr
	}
	return TypeIDi
}

func parseID(t PayloadType, b []byte) (*ID, error) {
	if len(b) < idHeaderLen {
		return nil, malformed(t, "cut off in its header")
	}
	id := &ID{Responder: t == TypeIDr, Kind: IDType(b[0]), Data: clone(b[idHeaderLen:])}
	copy(id.reserved[:], b[1:])
	if err := id.check(); err != nil {
		return nil, malformed(t, "%v", err)
	}
	return id, nil
}

// check makes sure that data of fixed length has it (RFC 7296 §3.5, RFC 7619 §2.2).
func (id *ID) check() error {
	want := -1
	switch id.Kind {
	case IDIPv4:
		want = 4
	case IDIPv6:
		want = 16
	case IDNull:
		want = 0
	}
	if want >= 0 && len(id.Data) != want {
		return fmt.Errorf("%v of %d octets", id.Kind, len(id.Data))
	}
	return nil
}

// Body returns the octets that AUTH covers: type, three reserved octets, which
// count as they were received, and data (RFC 7296 §2.15).
func (id *ID) Body() []byte {
	return id.appendHeaderAndData(make([]byte, 0, idHeaderLen+len(id.Data)))
}

func (id *ID) appendHeaderAndData(b []byte) []byte {
	b = append(b, byte(id.Kind), id.reserved[0], id.reserved[1], id.reserved[2])
	return append(b, id.Data...)
}

func (id *ID) appendBody(b []byte) ([]byte, error) {
	if err := id.check(); err != nil {
		return nil, err
	}
	return id.appendHeaderAndData(b), nil
}

// Addr returns the address of an ID_IPV4_ADDR or ID_IPV6_ADDR.
func (id *ID) Addr() (netip.Addr, bool) {
	if id.Kind != IDIPv4 && id.Kind != IDIPv6 {
		return netip.Addr{}, false
	}
	return netip.AddrFromSlice(id.Data)
}

// Type implements Payload.
func (*Cert) Type() PayloadType { return TypeCert }

func parseCert(b []byte) (*Cert, error) {
	if len(b) < 2 {
		return nil, malformed(TypeCert, "no certificate data")
	}
	return &Cert{Encoding: CertEncoding(b[0]), Data: clone(b[1:])}, nil
}

func (c *Cert) appendBody(b []byte) ([]byte, error) {
	if len(c.Data) == 0 {
		return nil, errors.New("no certificate data")
	}
	b = append(b, byte(c.Encoding))
	return append(b, c.Data...), nil
}

// AuthorityHashLen is the length of one hash in a CertReq (RFC 7296 §3.7).
const AuthorityHashLen = 20

// Type implements Payload.
func (*CertReq) Type() PayloadType { return TypeCertReq }

// parseCertReq parses encoding and authorities. The list may be empty: the peer
// has no preference, or does not want to tell.
func parseCertReq(b []byte) (*CertReq, error) {
	if len(b) < 1 {
		return nil, malformed(TypeCertReq, "no certificate encoding")
	}
	return &CertReq{Encoding: CertEncoding(b[0]), Data: clone(b[1:])}, nil
}

func (c *CertReq) appendBody(b []byte) ([]byte, error) {
	b = append(b, byte(c.Encoding))
	return append(b, c.Data...), nil
}

// Authorities returns the hashes of authorities that an X.509 request lists. An
// incomplete one at the end is left out.
func (c *CertReq) Authorities() [][AuthorityHashLen]byte {
	if c.Encoding != CertX509Signature {
		return nil
	}
	hashes := make([][AuthorityHashLen]byte, 0, len(c.Data)/AuthorityHashLen)
	for b := c.Data; len(b) >= AuthorityHashLen; b = b[AuthorityHashLen:] {
		hashes = append(hashes, [AuthorityHashLen]byte(b))
	}
	return hashes
}

// Type implements Payload.
func (*Auth) Type() PayloadType { return TypeAuth }

// parseAuth parses method, three reserved octets and data (RFC 7296 §3.8).
func parseAuth(b []byte) (*Auth, error) {
	if len(b) <= idHeaderLen {
		return nil, malformed(TypeAuth, "no authentication data")
	}
	return &Auth{Method: AuthMethod(b[0]), Data: clone(b[idHeaderLen:])}, nil
}

func (a *Auth) appendBody(b []byte) ([]byte, error) {
	if len(a.Data) == 0 {
		return nil, errors.New("no authentication data")
	}
	b = append(b, byte(a.Method), 0, 0, 0)
	return append(b, a.Data...), nil
}

// Type implements Payload.
func (*EAP) Type() PayloadType { return TypeEAP }

// parseEAP checks the length that the EAP packet has in itself (RFC 7296 §3.16).
func parseEAP(b []byte) (*EAP, error) {
	if err := checkEAP(b); err != nil {
		return nil, malformed(TypeEAP, "%v", err)
	}
	return &EAP{Data: clone(b)}, nil
}

func checkEAP(b []byte) error {
	if len(b) < 4 {
		return errors.New("cut off in the EAP header")
	}
	if n := int(b[2])<<8 | int(b[3]); n != len(b) {
		return fmt.Errorf("EAP packet says %d octets and has %d", n, len(b))
	}
	return nil
}

func (e *EAP) appendBody(b []byte) ([]byte, error) {
	if err := checkEAP(e.Data); err != nil {
		return nil, err
	}
	return append(b, e.Data...), nil
}
