package auth

import (
	"bytes"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// distinguishedName is an X.501 name, in the order of its encoding: from the
// general (country) to the special (common name).
type distinguishedName []relativeName

// relativeName is one element of a name, nearly always of one attribute.
type relativeName []attribute

// attribute is a type with a value. In a pattern wild stands for any value.
type attribute struct {
	oid   string // dotted
	tag   cbasn1.Tag
	value []byte // content octets
	wild  bool
}

// parseDN reads the DER encoding of a Name (RFC 5280 §4.1.2.4).
func parseDN(der []byte) (distinguishedName, error) {
	bad := fmt.Errorf("%w: not the DER encoding of a distinguished name", ErrBadIdentity)
	input := cryptobyte.String(der)
	var sequence cryptobyte.String
	if !input.ReadASN1(&sequence, cbasn1.SEQUENCE) || !input.Empty() {
		return nil, bad
	}
	var name distinguishedName
	for !sequence.Empty() {
		var set cryptobyte.String
		if !sequence.ReadASN1(&set, cbasn1.SET) || set.Empty() {
			return nil, bad
		}
		var rdn relativeName
		for !set.Empty() {
			a, ok := readAttribute(&set)
			if !ok {
				return nil, bad
			}
			rdn = append(rdn, a)
		}
		name = append(name, rdn)
	}
	return name, nil
}

func readAttribute(set *cryptobyte.String) (attribute, bool) {
	var pair, value cryptobyte.String
	var oid asn1.ObjectIdentifier
	var tag cbasn1.Tag
	if !set.ReadASN1(&pair, cbasn1.SEQUENCE) || !pair.ReadASN1ObjectIdentifier(&oid) ||
		!pair.ReadAnyASN1(&value, &tag) || !pair.Empty() {
		return attribute{}, false
	}
	return attribute{oid: oid.String(), tag: tag, value: bytes.Clone(value)}, true
}

// encode is the inverse of parseDN.
func (name distinguishedName) encode() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, rdn := range name {
			pairs, err := rdn.encodeSorted()
			if err != nil {
				b.SetError(err)
				return
			}
			b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
				for _, pair := range pairs {
					b.AddBytes(pair)
				}
			})
		}
	})
	return b.Bytes()
}

// encodeSorted encodes the attributes in the order that DER asks for in a SET OF
// (X.690 §11.6).
func (rdn relativeName) encodeSorted() ([][]byte, error) {
	var pairs [][]byte
	for _, a := range rdn {
		var b cryptobyte.Builder
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(parseOID(a.oid))
			b.AddASN1(a.tag, func(b *cryptobyte.Builder) { b.AddBytes(a.value) })
		})
		pair, err := b.Bytes()
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, pair)
	}
	slices.SortFunc(pairs, bytes.Compare)
	return pairs, nil
}

// parseOID reads a dotted object identifier, nil if it is none.
func parseOID(s string) asn1.ObjectIdentifier {
	var oid asn1.ObjectIdentifier
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.ParseUint(part, 10, 31)
		if err != nil {
			return nil
		}
		oid = append(oid, int(n))
	}
	if len(oid) < 2 || oid[0] > 2 || oid[0] < 2 && oid[1] > 39 {
		return nil
	}
	return oid
}

// key is equal for names that RFC 5280 §7.1 calls the same: strings are compared
// without regard to case, to the number of spaces, and to the string type.
func (name distinguishedName) key() string {
	var b strings.Builder
	for _, rdn := range name {
		keys := make([]string, len(rdn))
		for i, a := range rdn {
			keys[i] = a.key()
		}
		slices.Sort(keys)
		fmt.Fprintf(&b, "%d", len(keys))
		for _, k := range keys {
			fmt.Fprintf(&b, ",%d:%s", len(k), k)
		}
		b.WriteByte(';')
	}
	return b.String()
}

func (a attribute) key() string {
	if text, ok := a.text(); ok {
		return a.oid + "=" + lowerASCII(strings.Join(strings.Fields(text), " "))
	}
	return fmt.Sprintf("%s#%d:%x", a.oid, a.tag, a.value)
}

// text is the value of an attribute of one of the string types in use.
func (a attribute) text() (string, bool) {
	switch a.tag {
	case cbasn1.PrintableString, cbasn1.IA5String, cbasn1.UTF8String:
		return string(a.value), utf8.Valid(a.value)
	}
	return "", false
}

// dnString is the RFC 4514 string for a name, most special element first. Where
// ParseIdentity would take it for the other order, it gets the prefix "dn:".
func dnString(der []byte) string {
	name, err := parseDN(der)
	if err != nil || len(name) == 0 {
		return "dn:#" + shortHex(der)
	}
	s := name.String()
	if name.reversed().generalFirst() {
		return "dn:" + s
	}
	return s
}

// String is the RFC 4514 string.
func (name distinguishedName) String() string {
	parts := make([]string, 0, len(name))
	for _, rdn := range slices.Backward(name) {
		pairs := make([]string, len(rdn))
		for i, a := range rdn {
			pairs[i] = a.String()
		}
		parts = append(parts, strings.Join(pairs, "+"))
	}
	return strings.Join(parts, ",")
}

// String writes an attribute by RFC 4514 §2.3 and §2.4.
func (a attribute) String() string {
	label, known := attributeLabels[a.oid]
	if !known {
		label = a.oid
	}
	if a.wild {
		return label + "=*"
	}
	text, isText := a.text()
	if isText {
		// Only what encodeText would accept can be read back as a string. It may
		// choose another string type, which makes no difference to Key.
		_, err := encodeText(a.oid, text)
		isText = err == nil
	}
	if !known || !isText {
		var b cryptobyte.Builder
		b.AddASN1(a.tag, func(b *cryptobyte.Builder) { b.AddBytes(a.value) })
		der, err := b.Bytes()
		if err != nil {
			return label + "=#"
		}
		return label + "=#" + hex.EncodeToString(der)
	}
	return label + "=" + escapeDN(text)
}

// escapeDN escapes a value by RFC 4514 §2.4, and everything unprintable too.
func escapeDN(s string) string {
	if s == "*" {
		return `\2a` // not the wildcard of patterns
	}
	var b strings.Builder
	for i, r := range s {
		edge := i == 0 || i+utf8.RuneLen(r) == len(s)
		switch {
		case strings.ContainsRune(`"+,;<>\`, r), r == ' ' && edge, r == '#' && i == 0:
			b.WriteByte('\\')
			b.WriteRune(r)
		case !strconv.IsPrint(r):
			for _, c := range []byte(string(r)) {
				fmt.Fprintf(&b, `\%02x`, c)
			}
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
