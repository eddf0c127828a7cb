package auth

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Object identifiers of attribute types that need special care.
const (
	oidCountry      = "2.5.4.6"
	oidSerialNumber = "2.5.4.5"
	oidDC           = "0.9.2342.19200300.100.1.25"
	oidEmail        = "1.2.840.113549.1.9.1"
)

// attributeTypes are the attribute types that have a name. Rank is how general
// the attribute is by convention: it tells in which order a name is written.
var attributeTypes = []struct {
	label, oid string
	rank       int
}{
	// RFC 4514 §3
	{"C", oidCountry, 0},
	{"DC", oidDC, 0},
	{"ST", "2.5.4.8", 1},
	{"L", "2.5.4.7", 2},
	{"STREET", "2.5.4.9", 3},
	{"O", "2.5.4.10", 4},
	{"OU", "2.5.4.11", 5},
	{"CN", "2.5.4.3", 6},
	{"UID", "0.9.2342.19200300.100.1.1", 6},
	// RFC 5280 Appendix A.1
	{"serialNumber", oidSerialNumber, 6},
	{"SN", "2.5.4.4", 6},
	{"GN", "2.5.4.42", 6},
	{"title", "2.5.4.12", 6},
	{"emailAddress", oidEmail, 6},
}

// otherLabels are further names that tools write for the same types.
var otherLabels = map[string]string{
	"e": oidEmail, "email": oidEmail, "s": "2.5.4.8", "t": "2.5.4.12",
	"surname": "2.5.4.4", "givenname": "2.5.4.42", "g": "2.5.4.42", "userid": "0.9.2342.19200300.100.1.1",
}

var attributeLabels, attributeOIDs, attributeRanks = func() (labels, oids map[string]string, ranks map[string]int) {
	labels, oids, ranks = map[string]string{}, map[string]string{}, map[string]int{}
	for _, t := range attributeTypes {
		labels[t.oid], oids[lowerASCII(t.label)], ranks[t.oid] = t.label, t.oid, t.rank
	}
	for label, oid := range otherLabels {
		oids[label] = oid
	}
	return labels, oids, ranks
}()

func encodeDN(s string, guessOrder bool) ([]byte, error) {
	name, rest, err := parseDNString(s, guessOrder)
	if err != nil {
		return nil, err
	}
	if rest || name.hasWildcard() {
		return nil, fmt.Errorf("distinguished name %q: %w: wildcards are for patterns only", printable(s), ErrBadIdentity)
	}
	return name.encode()
}

// parseDNString reads a name or a pattern for names; rest tells that the pattern
// has an element "*", for any further elements. With guessOrder the order of writing is
// recognized, without it is that of RFC 4514.
func parseDNString(s string, guessOrder bool) (name distinguishedName, rest bool, err error) {
	if len(s) > maxShown {
		return nil, false, fmt.Errorf("%w: distinguished name of %d octets", ErrBadIdentity, len(s))
	}
	for _, element := range splitUnescaped(s, ',') {
		element = trimUnescaped(element)
		if element == "*" {
			rest = true
			continue
		}
		var rdn relativeName
		for _, pair := range splitUnescaped(element, '+') {
			a, err := parseAttribute(pair)
			if err != nil {
				return nil, false, fmt.Errorf("distinguished name %q: %w", printable(s), err)
			}
			rdn = append(rdn, a)
		}
		name = append(name, rdn)
	}
	if !guessOrder || !name.generalFirst() {
		name = name.reversed()
	}
	return name, rest, nil
}

// generalFirst says whether the first element is more general than the last.
func (name distinguishedName) generalFirst() bool {
	if len(name) < 2 {
		return false
	}
	first, ok1 := attributeRanks[name[0][0].oid]
	last, ok2 := attributeRanks[name[len(name)-1][0].oid]
	return ok1 && ok2 && first < last
}

func (name distinguishedName) reversed() distinguishedName {
	out := slices.Clone(name)
	slices.Reverse(out)
	return out
}

func (name distinguishedName) hasWildcard() bool {
	for _, rdn := range name {
		for _, a := range rdn {
			if a.wild {
				return true
			}
		}
	}
	return false
}

func parseAttribute(s string) (attribute, error) {
	label, text, ok := strings.Cut(s, "=")
	label = strings.TrimSpace(label)
	if !ok || label == "" {
		return attribute{}, fmt.Errorf("%w: %q is not of the form TYPE=value", ErrBadIdentity, printable(strings.TrimSpace(s)))
	}
	oid, err := attributeOID(label)
	if err != nil {
		return attribute{}, err
	}
	text = trimUnescaped(text)
	if text == "*" {
		return attribute{oid: oid, wild: true}, nil
	}
	if digits, isHex := strings.CutPrefix(text, "#"); isHex {
		return hexAttribute(oid, digits)
	}
	value, err := unescapeDN(text)
	if err != nil {
		return attribute{}, err
	}
	return encodeText(oid, value)
}

func attributeOID(label string) (string, error) {
	if oid, ok := attributeOIDs[lowerASCII(label)]; ok {
		return oid, nil
	}
	dotted := strings.TrimPrefix(lowerASCII(label), "oid.")
	if oid := parseOID(dotted); oid != nil {
		return oid.String(), nil
	}
	return "", fmt.Errorf("%w: unknown attribute type %q: use CN, O, OU, C, ST, L, DC, UID, emailAddress, or a dotted object identifier", ErrBadIdentity, printable(label))
}

// hexAttribute reads the '#' form of RFC 4514 §2.4: the DER encoding of the value.
func hexAttribute(oid, digits string) (attribute, error) {
	bad := fmt.Errorf("%w: after '#' the DER encoding of a value is expected, in hexadecimal", ErrBadIdentity)
	der, err := hex.DecodeString(digits)
	if err != nil {
		return attribute{}, bad
	}
	input := cryptobyte.String(der)
	var value cryptobyte.String
	var tag cbasn1.Tag
	if !input.ReadAnyASN1(&value, &tag) || !input.Empty() {
		return attribute{}, bad
	}
	return attribute{oid: oid, tag: tag, value: value}, nil
}

// encodeText chooses the string type as RFC 5280 §4.1.2.4 and Appendix A do:
// PrintableString where that is possible, else UTF8String; some types have their own.
func encodeText(oid, text string) (attribute, error) {
	a := attribute{oid: oid, tag: cbasn1.UTF8String, value: []byte(text)}
	switch {
	case text == "":
		return a, fmt.Errorf("%w: attribute without a value", ErrBadIdentity)
	case oid == oidEmail || oid == oidDC:
		a.tag = cbasn1.IA5String
		if strings.IndexFunc(text, func(r rune) bool { return r > 127 }) >= 0 {
			return a, fmt.Errorf("%w: %q must be ASCII", ErrBadIdentity, printable(text))
		}
	case isPrintableString(text):
		a.tag = cbasn1.PrintableString
	case oid == oidCountry || oid == oidSerialNumber:
		return a, fmt.Errorf("%w: %q is not possible for this attribute type", ErrBadIdentity, printable(text))
	}
	return a, nil
}

// isPrintableString knows the alphabet of PrintableString (X.680 §41.4).
func isPrintableString(s string) bool {
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		case strings.ContainsRune(" '()+,-./:=?", r):
		default:
			return false
		}
	}
	return true
}

// unescapeDN undoes the escapes of RFC 4514 §3: a backslash and a special
// character or two hexadecimal digits.
func unescapeDN(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '"' {
			return "", fmt.Errorf(`%w: quotes are not supported: write a comma in a value as "\,"`, ErrBadIdentity)
		}
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch {
		case i < len(s) && strings.IndexByte(` "#+,;<=>\`, s[i]) >= 0:
			b.WriteByte(s[i])
		case i+1 < len(s):
			octet, err := hex.DecodeString(s[i : i+2])
			if err != nil {
				return "", fmt.Errorf(`%w: invalid escape \%s`, ErrBadIdentity, printable(s[i:i+2]))
			}
			b.Write(octet)
			i++
		default:
			return "", fmt.Errorf("%w: backslash at the end of a value", ErrBadIdentity)
		}
	}
	if !utf8.ValidString(b.String()) {
		return "", fmt.Errorf("%w: value is not UTF-8", ErrBadIdentity)
	}
	return b.String(), nil
}

// splitUnescaped splits at a separator that no backslash stands before.
func splitUnescaped(s string, sep byte) []string {
	var parts []string
	start := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case sep:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}

// trimUnescaped removes white space around a value, but not an escaped space at
// its end.
func trimUnescaped(s string) string {
	s = strings.TrimLeftFunc(s, unicode.IsSpace)
	trimmed := strings.TrimRightFunc(s, unicode.IsSpace)
	backslashes := len(trimmed) - len(strings.TrimRight(trimmed, `\`))
	if backslashes%2 == 1 && strings.HasPrefix(s[len(trimmed):], " ") {
		trimmed += " "
	}
	return trimmed
}
