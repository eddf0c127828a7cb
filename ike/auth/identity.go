package auth

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
)

// maxIdentity bounds the identities we accept. E-mail addresses and domain names
// stay below 256 octets; distinguished names can be longer.
const maxIdentity = 1024

// Identity is who a peer says it is: the kind and the octets of an Identification
// payload (RFC 7296 §3.5). Compare with Equal, not octet by octet.
type Identity struct {
	Kind message.IDType
	Data []byte
}

// FromPayload is the identity in an Identification payload. It shares no memory
// with the payload.
func FromPayload(p *message.ID) Identity {
	if p == nil {
		return Identity{}
	}
	return Identity{Kind: p.Kind, Data: bytes.Clone(p.Data)}
}

// Payload is the Identification payload for an identity: IDr if responder, IDi if
// not.
func (id Identity) Payload(responder bool) *message.ID {
	return &message.ID{Responder: responder, Kind: id.Kind, Data: bytes.Clone(id.Data)}
}

// IsZero says whether there is no identity.
func (id Identity) IsZero() bool { return id.Kind == 0 && len(id.Data) == 0 }

// Addr is the address of an ID_IPV4_ADDR or ID_IPV6_ADDR identity. Where that is
// used the peer must be at this address (RFC 4945 §3.1.1).
func (id Identity) Addr() (netip.Addr, bool) {
	switch {
	case id.Kind == message.IDIPv4 && len(id.Data) == 4,
		id.Kind == message.IDIPv6 && len(id.Data) == 16:
		return netip.AddrFromSlice(id.Data)
	}
	return netip.Addr{}, false
}

// Valid says whether the identity has the form that its kind asks for. Malformed
// identities match nothing.
func (id Identity) Valid() error {
	if len(id.Data) > maxIdentity {
		return fmt.Errorf("%w: %d octets, at most %d are accepted", ErrBadIdentity, len(id.Data), maxIdentity)
	}
	switch id.Kind {
	case message.IDIPv4, message.IDIPv6:
		if _, ok := id.Addr(); !ok {
			return fmt.Errorf("%w: an address of %d octets", ErrBadIdentity, len(id.Data))
		}
	case message.IDFQDN, message.IDRFC822:
		if len(bytes.TrimSpace(id.Data)) != len(id.Data) {
			return fmt.Errorf("%w: name with space around it", ErrBadIdentity)
		}
		return validText(id.Data)
	case message.IDDERDN:
		name, err := parseDN(id.Data)
		if err != nil {
			return err
		}
		if len(name) == 0 {
			return fmt.Errorf("%w: empty distinguished name", ErrBadIdentity) // RFC 4945 §3.1.5
		}
	case message.IDKeyID:
		if len(id.Data) == 0 {
			return fmt.Errorf("%w: empty key ID", ErrBadIdentity)
		}
	default:
		return fmt.Errorf("%w: identification type %d is not supported", ErrBadIdentity, id.Kind)
	}
	return nil
}

// validText accepts any reasonable looking name (RFC 7296 §3.5 asks to be no
// stricter), and no terminators or other control characters.
func validText(b []byte) error {
	if len(b) == 0 {
		return fmt.Errorf("%w: empty name", ErrBadIdentity)
	}
	if !utf8.Valid(b) {
		return fmt.Errorf("%w: name is not UTF-8", ErrBadIdentity)
	}
	for _, r := range string(b) {
		if !strconv.IsPrint(r) {
			return fmt.Errorf("%w: name contains the unprintable character %U", ErrBadIdentity, r)
		}
	}
	return nil
}

// Equal says whether two identities name the same peer. Domain names and e-mail
// addresses are compared without regard to case (RFC 4945 §3.1.2, §3.1.3),
// distinguished names by RFC 5280 §7.1, all others octet by octet.
func (id Identity) Equal(other Identity) bool {
	if id.Kind != other.Kind {
		return false
	}
	return bytes.Equal(id.Data, other.Data) || id.Key() == other.Key()
}

// Key is a string that is the same for identities that are Equal, and only for
// them: for maps and databases. It may hold any octets; to show an identity use
// String.
func (id Identity) Key() string {
	prefix := strconv.Itoa(int(id.Kind)) + ":"
	switch id.Kind {
	case message.IDFQDN, message.IDRFC822:
		return prefix + lowerASCII(string(id.Data))
	case message.IDDERDN:
		if name, err := parseDN(id.Data); err == nil {
			return prefix + name.key()
		}
		// No canonical name starts with NUL, so a malformed one equals only itself.
		return prefix + "\x00" + string(id.Data)
	}
	return prefix + string(id.Data)
}

// String shows the identity so that it is safe in a log line or on a terminal:
// without control characters, and of bounded length. ParseIdentity reads it back
// when the identity is Valid.
func (id Identity) String() string {
	switch id.Kind {
	case message.IDIPv4, message.IDIPv6:
		if a, ok := id.Addr(); ok {
			return a.String()
		}
	case message.IDFQDN, message.IDRFC822:
		return id.textString()
	case message.IDDERDN:
		return printable(dnString(id.Data))
	case message.IDKeyID:
		return keyIDString(id.Data)
	case message.IDNull:
		return "(anonymous)"
	case 0:
		return "(none)"
	}
	return fmt.Sprintf("type %d:%s", id.Kind, shortHex(id.Data))
}

// textString leaves the prefix away where ParseIdentity would guess the kind.
func (id Identity) textString() string {
	s := string(id.Data)
	if guessed, err := ParseIdentity(s); err == nil && guessed.Kind == id.Kind && bytes.Equal(guessed.Data, id.Data) {
		return printable(s)
	}
	if id.Kind == message.IDFQDN {
		return "fqdn:" + printable(s)
	}
	return "email:" + printable(s)
}

// LogValue is what a log line shows.
func (id Identity) LogValue() slog.Value { return slog.StringValue(id.String()) }

func keyIDString(b []byte) string {
	if validText(b) == nil && !bytes.HasPrefix(b, []byte("#")) {
		return "keyid:" + printable(string(b))
	}
	return "keyid:#" + shortHex(b)
}

// maxShown bounds what is shown of one name; the longest identity that is Valid
// fits.
const maxShown = 4 * maxIdentity

// printable replaces what could disturb a log or a terminal.
func printable(s string) string {
	var b strings.Builder
	for i, r := range s {
		if b.Len() > maxShown {
			b.WriteString("...")
			break
		}
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case !strconv.IsPrint(r):
			fmt.Fprintf(&b, `\u{%x}`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func shortHex(b []byte) string {
	if len(b) > maxIdentity {
		return hex.EncodeToString(b[:maxIdentity]) + "..."
	}
	return hex.EncodeToString(b)
}

// lowerASCII folds A to Z only: domain names on the wire are ASCII, and what other
// characters mean in another case depends on the language.
func lowerASCII(s string) string {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			b := []byte(s)
			for j := i; j < len(b); j++ {
				if b[j] >= 'A' && b[j] <= 'Z' {
					b[j] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}
