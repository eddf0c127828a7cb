package auth

import (
	"fmt"
	"slices"
	"strings"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
)

// Pattern says which identities are acceptable. The zero value matches none.
type Pattern struct {
	kind   patternKind
	id     Identity          // exact
	domain string            // lower case, below it or at it
	name   distinguishedName // with wildcards
	rest   bool              // any further elements of the name
	text   string
}

type patternKind uint8

const (
	matchNothing patternKind = iota
	matchAny
	matchExact
	matchMailbox   // *@domain
	matchSubdomain // *.domain
	matchName
)

// Any matches every well-formed identity except the anonymous one.
func Any() Pattern { return Pattern{kind: matchAny, text: "*"} }

// Exactly matches one identity.
func Exactly(id Identity) Pattern {
	return Pattern{kind: matchExact, id: id, text: id.String()}
}

// ParsePattern reads a pattern:
//
//	%any or *                anybody who can prove an identity
//	laptop@example.test      this identity, in any form that ParseIdentity reads
//	*@example.test           every e-mail address of this domain
//	*.example.test           every name below this domain, at any depth
//	CN=*,O=Example           names of these elements; * stands for any value
//	O=Example,*              names that have these elements, and any others
func ParsePattern(s string) (Pattern, error) {
	s = trimUnescaped(s)
	switch {
	case s == "":
		return Pattern{}, fmt.Errorf("identity pattern: %w: it is empty: write * for anybody", ErrBadIdentity)
	case s == "*" || s == "%any":
		return Any(), nil
	case validText([]byte(s)) != nil:
		return Pattern{}, fmt.Errorf("identity pattern %q: %w", printable(s), validText([]byte(s)))
	case strings.HasPrefix(s, "*@"):
		return domainPattern(matchMailbox, s, s[len("*@"):])
	case strings.HasPrefix(s, "*."):
		return domainPattern(matchSubdomain, s, s[len("*."):])
	}
	if p, ok, err := namePattern(s); ok || err != nil {
		return p, err
	}
	id, err := ParseIdentity(s)
	if err != nil {
		return Pattern{}, err
	}
	if strings.Contains(s, "*") && (id.Kind == message.IDFQDN || id.Kind == message.IDRFC822) {
		return Pattern{}, fmt.Errorf("identity pattern %q: %w: * can stand for all that is before a domain only, as in *@example.test and *.example.test", printable(s), ErrBadIdentity)
	}
	return Exactly(id), nil
}

func domainPattern(kind patternKind, s, domain string) (Pattern, error) {
	domain = strings.TrimSuffix(domain, ".")
	if err := validText([]byte(domain)); err != nil || strings.ContainsAny(domain, "*@=") {
		return Pattern{}, fmt.Errorf("identity pattern %q: %w: a domain is expected after the wildcard", printable(s), ErrBadIdentity)
	}
	return Pattern{kind: kind, domain: lowerASCII(domain), text: s}, nil
}

// namePattern reads a pattern for distinguished names; ok is false when it is
// something else, a name without wildcards included.
func namePattern(s string) (p Pattern, ok bool, err error) {
	text, prefixed := cutPrefixFold(s, "dn:")
	if !prefixed {
		equals, at := strings.IndexByte(s, '='), strings.IndexByte(s, '@')
		if equals < 0 || at >= 0 && at < equals || hasKindPrefix(s) {
			return Pattern{}, false, nil
		}
	}
	if strings.HasPrefix(strings.TrimSpace(text), "#") {
		return Pattern{}, false, nil
	}
	name, rest, err := parseDNString(text, !prefixed)
	if err != nil {
		return Pattern{}, false, fmt.Errorf("identity pattern: %w", err)
	}
	if !rest && !name.hasWildcard() {
		return Pattern{}, false, nil
	}
	return Pattern{kind: matchName, name: name, rest: rest, text: s}, true, nil
}

// Match says whether an identity is acceptable. Malformed identities are not.
func (p Pattern) Match(id Identity) bool {
	if id.Valid() != nil {
		return false
	}
	switch p.kind {
	case matchAny:
		return true
	case matchExact:
		return p.id.Equal(id)
	case matchMailbox:
		local, domain, ok := strings.Cut(string(id.Data), "@")
		return ok && id.Kind == message.IDRFC822 && local != "" && lowerASCII(domain) == p.domain
	case matchSubdomain:
		host, ok := strings.CutSuffix(lowerASCII(string(id.Data)), "."+p.domain)
		return ok && id.Kind == message.IDFQDN && host != ""
	case matchName:
		name, err := parseDN(id.Data)
		return err == nil && id.Kind == message.IDDERDN && p.matchesName(name)
	}
	return false
}

// Exact is the only identity that matches, if there is just one.
func (p Pattern) Exact() (Identity, bool) { return p.id, p.kind == matchExact }

// String is the pattern as it was written.
func (p Pattern) String() string {
	if p.kind == matchNothing {
		return "(nobody)"
	}
	return printable(p.text)
}

// matchesName compares element by element; with p.rest the elements may stand
// anywhere and others between them (RFC 4945 §3.1.5).
func (p Pattern) matchesName(name distinguishedName) bool {
	if !p.rest {
		return slices.EqualFunc(p.name, name, relativeName.matches)
	}
	used := make([]bool, len(name))
	for _, wanted := range wildLast(p.name) {
		if !claim(used, func(i int) bool { return wanted.matches(name[i]) }) {
			return false
		}
	}
	return true
}

// matches says whether a pattern's element matches an element of a name.
func (rdn relativeName) matches(other relativeName) bool {
	if len(rdn) != len(other) {
		return false
	}
	used := make([]bool, len(other))
	for _, exact := range []bool{true, false} {
		for _, a := range rdn {
			if a.wild == exact {
				continue
			}
			if !claim(used, func(i int) bool {
				return a.oid == other[i].oid && (a.wild || a.key() == other[i].key())
			}) {
				return false
			}
		}
	}
	return true
}

// claim marks the first unused index for which match holds.
func claim(used []bool, match func(int) bool) bool {
	for i := range used {
		if !used[i] && match(i) {
			used[i] = true
			return true
		}
	}
	return false
}

// wildLast puts elements with wildcards behind those without, so that a wildcard
// does not claim what an exact element needs.
func wildLast(name distinguishedName) distinguishedName {
	out := slices.Clone(name)
	slices.SortStableFunc(out, func(a, b relativeName) int {
		return countWild(a) - countWild(b)
	})
	return out
}

func countWild(rdn relativeName) (n int) {
	for _, a := range rdn {
		if a.wild {
			n++
		}
	}
	return n
}
