package auth

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
)

// ParseIdentity reads an identity as people write it. The kind is guessed: with
// '=' a distinguished name, with '@' an e-mail address, an IP address, and
// otherwise a domain name. The prefixes "fqdn:", "email:", "keyid:", "dn:" and
// "ip:" say it. After "keyid:" and "dn:" the octets can be given as '#' and hex.
//
// Distinguished names are RFC 4514 strings. Since many tools write them in the
// order of the encoding, that order is recognized without a prefix (see ParseDN);
// after "dn:" it is not.
func ParseIdentity(s string) (Identity, error) {
	id, err := parseIdentity(s)
	if err != nil {
		return Identity{}, err
	}
	if err := id.Valid(); err != nil {
		return Identity{}, fmt.Errorf("identity %q: %w", printable(s), err)
	}
	return id, nil
}

func parseIdentity(s string) (Identity, error) {
	if rest, ok := cutPrefixFold(s, "fqdn:"); ok {
		return Identity{message.IDFQDN, []byte(rest)}, nil
	}
	if rest, ok := cutPrefixFold(s, "email:"); ok {
		return Identity{message.IDRFC822, []byte(rest)}, nil
	}
	if rest, ok := cutPrefixFold(s, "keyid:"); ok {
		return keyIDIdentity(rest)
	}
	if rest, ok := cutPrefixFold(s, "dn:"); ok {
		return dnIdentity(rest, false)
	}
	if rest, ok := cutPrefixFold(s, "ip:"); ok {
		return addrIdentity(rest)
	}
	s = trimUnescaped(s)
	// An e-mail address may hold a '=' and a distinguished name an '@': what comes
	// first decides.
	if i := strings.IndexAny(s, "=@"); i >= 0 {
		if s[i] == '=' {
			return dnIdentity(s, true)
		}
		return Identity{message.IDRFC822, []byte(s)}, nil
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return addrIdentity(s)
	}
	return fqdnIdentity(s), nil
}

// cutPrefixFold is strings.CutPrefix for a lower-case prefix, in any case.
func cutPrefixFold(s, prefix string) (rest string, ok bool) {
	if len(s) < len(prefix) || lowerASCII(s[:len(prefix)]) != prefix {
		return s, false
	}
	return s[len(prefix):], true
}

func hasKindPrefix(s string) bool {
	for _, prefix := range []string{"fqdn:", "email:", "keyid:", "dn:", "ip:"} {
		if _, ok := cutPrefixFold(s, prefix); ok {
			return true
		}
	}
	return false
}

// fqdnIdentity leaves away the final dot of an absolute name, which certificates
// do not have.
func fqdnIdentity(s string) Identity {
	if len(s) > 1 {
		s = strings.TrimSuffix(s, ".")
	}
	return Identity{message.IDFQDN, []byte(s)}
}

func keyIDIdentity(s string) (Identity, error) {
	text, isHex := strings.CutPrefix(s, "#")
	if !isHex {
		return Identity{message.IDKeyID, []byte(s)}, nil
	}
	b, err := hex.DecodeString(text)
	if err != nil {
		return Identity{}, fmt.Errorf("identity %q: %w: after '#' hexadecimal digits are expected", printable(s), ErrBadIdentity)
	}
	return Identity{message.IDKeyID, b}, nil
}

func addrIdentity(s string) (Identity, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return Identity{}, fmt.Errorf("identity %q: %w: not an IP address", printable(s), ErrBadIdentity)
	}
	return AddrIdentity(a), nil
}

// AddrIdentity is the identity of an address.
func AddrIdentity(a netip.Addr) Identity {
	if a.Is4() {
		return Identity{message.IDIPv4, a.AsSlice()}
	}
	return Identity{message.IDIPv6, a.AsSlice()}
}

func dnIdentity(s string, guessOrder bool) (Identity, error) {
	if text, isHex := strings.CutPrefix(strings.TrimSpace(s), "#"); isHex {
		b, err := hex.DecodeString(text)
		if err != nil {
			return Identity{}, fmt.Errorf("identity %q: %w: after '#' hexadecimal digits are expected", printable(s), ErrBadIdentity)
		}
		return Identity{message.IDDERDN, b}, nil
	}
	der, err := encodeDN(s, guessOrder)
	if err != nil {
		return Identity{}, err
	}
	return Identity{message.IDDERDN, der}, nil
}
