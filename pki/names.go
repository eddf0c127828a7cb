package pki

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
)

// Limits of names: RFC 5280 Appendix A.1 for subjects, RFC 1035 for domain names,
// RFC 5321 for e-mail addresses.
const (
	maxCommonName = 64
	maxDomain     = 253
	maxLabel      = 63
	maxEmail      = 254
)

// checkSubject checks what goes into the subject of an authority.
func checkSubject(name, organization string) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if organization != "" {
		if err := checkName(organization); err != nil {
			return fmt.Errorf("organization: %w", err)
		}
	}
	if len(name) > maxCommonName || len(organization) > maxCommonName {
		return fmt.Errorf("name and organization: %w: at most %d octets each", ErrInvalid, maxCommonName)
	}
	return nil
}

// checkName accepts names that can be listed and typed.
func checkName(s string) error {
	if s == "" || len(s) > maxEmail || strings.TrimSpace(s) != s || !utf8.ValidString(s) {
		return fmt.Errorf("%q: %w: a name has 1 to %d octets, without space around it", s, ErrInvalid, maxEmail)
	}
	for _, r := range s {
		if !strconv.IsPrint(r) {
			return fmt.Errorf("%q: %w: it contains an unprintable character", s, ErrInvalid)
		}
	}
	return nil
}

// checkDomain accepts domain names in the form they have in certificates.
func checkDomain(s string) error {
	bad := func(why string) error { return fmt.Errorf("domain name %q: %w: %s", s, ErrInvalid, why) }
	if s == "" || len(s) > maxDomain {
		return bad(fmt.Sprintf("it must have 1 to %d characters", maxDomain))
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > maxLabel {
			return bad(fmt.Sprintf("the parts between dots must have 1 to %d characters", maxLabel))
		}
		if label[0] == '-' || label[len(label)-1] == '-' {
			return bad("a part must not begin or end with a hyphen")
		}
		for _, r := range label {
			switch {
			case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			case r == '*':
				return bad("IKE does not know wildcards: name every gateway (RFC 4945 §5.1.3.6.1)")
			case r > 127:
				return bad("write it in its ASCII form, which begins with xn--")
			default:
				return bad(fmt.Sprintf("it contains %q", r))
			}
		}
	}
	return nil
}

// clientName reads the identity of a client: an e-mail address or a domain name.
func clientName(s string) (name string, isEmail bool, err error) {
	id, err := auth.ParseIdentity(s)
	if err != nil {
		return "", false, err
	}
	name = string(id.Data)
	switch id.Kind {
	case message.IDFQDN:
		return name, false, checkDomain(name)
	case message.IDRFC822:
		return name, true, checkEmail(name)
	}
	return "", false, fmt.Errorf("identity %q: %w: a client is named by an e-mail address or a domain name", s, ErrInvalid)
}

// checkEmail accepts the addresses that certificates can hold (RFC 5280 §4.2.1.6),
// without the quoted forms that nobody uses.
func checkEmail(s string) error {
	bad := func(why string) error { return fmt.Errorf("e-mail address %q: %w: %s", s, ErrInvalid, why) }
	local, domain, ok := strings.Cut(s, "@")
	if !ok || local == "" || len(s) > maxEmail {
		return bad("it is not of the form name@domain")
	}
	for _, r := range local {
		if r <= ' ' || r >= 127 || strings.ContainsRune(`"(),:;<>[\]@`, r) {
			return bad(fmt.Sprintf("it contains %q", r))
		}
	}
	return checkDomain(domain)
}
