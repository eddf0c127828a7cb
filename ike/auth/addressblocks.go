package auth

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Certificates that say which IP addresses their holder may use carry the IP
// address delegation extension (RFC 3779 §2.2), always marked critical. crypto/x509
// does not know it and refuses such certificates, so it is validated here: the
// addresses of each certificate must be among those of its issuer.

var oidAddressBlocks = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 7}

// addressBlocks maps an address family (AFI with optional SAFI, as encoded) to its
// addresses.
type addressBlocks map[string]familyBlock

// familyBlock holds ranges in ascending order that neither overlap nor touch.
type familyBlock struct {
	inherit bool
	ranges  []addressRange
}

type addressRange struct{ from, to netip.Addr }

// withoutAddressBlocks is a certificate in which the extension no longer counts as
// unhandled; checkAddressBlocks has to be called for the chain.
func withoutAddressBlocks(c *x509.Certificate) *x509.Certificate {
	if !slices.ContainsFunc(c.UnhandledCriticalExtensions, oidAddressBlocks.Equal) {
		return c
	}
	handled := *c
	handled.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(c.UnhandledCriticalExtensions), oidAddressBlocks.Equal)
	return &handled
}

// checkAddressBlocks validates the extension along a chain (RFC 3779 §2.3). Once a
// certificate has it, all above up to the root must have it too.
func checkAddressBlocks(chain []*x509.Certificate) error {
	var allowed addressBlocks // of the certificate above; nil: it has no extension
	for i, c := range slices.Backward(chain) {
		blocks, err := certificateBlocks(c)
		if err == nil && blocks != nil {
			blocks, err = blocks.within(allowed, i == len(chain)-1)
		}
		if err != nil {
			return inChain(c, i == 0, fmt.Errorf("%w: IP address delegation (RFC 3779): %w", ErrBadCertificate, err))
		}
		allowed = blocks
	}
	return nil
}

// certificateBlocks reads the extension of a certificate, nil if it has none.
func certificateBlocks(c *x509.Certificate) (addressBlocks, error) {
	for _, e := range c.Extensions {
		if e.Id.Equal(oidAddressBlocks) {
			return parseAddressBlocks(e.Value)
		}
	}
	return nil, nil
}

// AddressSet holds IP addresses as ranges; the zero set is empty.
type AddressSet []addressRange

// Contains says whether an address is in the set.
func (s AddressSet) Contains(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(s, func(r addressRange) bool {
		return r.from.Is4() == a.Is4() && r.from.Compare(a) <= 0 && a.Compare(r.to) <= 0
	})
}

// certifiedAddresses are the unicast addresses that the first certificate of a
// verified chain may use; none if it does not say.
func certifiedAddresses(chain []*x509.Certificate) AddressSet {
	var allowed addressBlocks
	for i, c := range slices.Backward(chain) {
		blocks, err := certificateBlocks(c)
		if err == nil && blocks != nil {
			blocks, err = blocks.within(allowed, i == len(chain)-1)
		}
		if err != nil {
			return nil // checkAddressBlocks has passed the chain, so this does not happen
		}
		allowed = blocks
	}
	var set AddressSet
	for family, block := range allowed {
		if len(family) == 2 || family[2] == safiUnicast {
			set = append(set, block.ranges...)
		}
	}
	return set
}

// safiUnicast is the subsequent address family identifier of unicast forwarding
// (RFC 3779 §2.2.3.3). A family without one holds for every use.
const safiUnicast = 1

// within resolves inheritance, and checks that all addresses are allowed.
func (blocks addressBlocks) within(allowed addressBlocks, root bool) (addressBlocks, error) {
	resolved := make(addressBlocks, len(blocks))
	for family, block := range blocks {
		above, ok := allowed[family]
		switch {
		case root && block.inherit:
			return nil, errors.New("a root cannot inherit addresses")
		case !root && !ok:
			return nil, fmt.Errorf("the issuer holds no addresses of family %s", hex.EncodeToString([]byte(family)))
		case block.inherit:
			block = above
		case !root:
			for _, r := range block.ranges {
				if !above.contains(r) {
					return nil, fmt.Errorf("the issuer does not hold %s to %s", r.from, r.to)
				}
			}
		}
		resolved[family] = block
	}
	return resolved, nil
}

func (f familyBlock) contains(r addressRange) bool {
	return slices.ContainsFunc(f.ranges, func(above addressRange) bool {
		return above.from.Compare(r.from) <= 0 && above.to.Compare(r.to) >= 0
	})
}

var errAddressBlocks = errors.New("malformed extension")

// parseAddressBlocks reads an IPAddrBlocks (RFC 3779 §2.2.3).
func parseAddressBlocks(der []byte) (addressBlocks, error) {
	input := cryptobyte.String(der)
	var families cryptobyte.String
	if !input.ReadASN1(&families, cbasn1.SEQUENCE) || !input.Empty() {
		return nil, errAddressBlocks
	}
	blocks := addressBlocks{}
	for !families.Empty() {
		var entry, family cryptobyte.String
		if !families.ReadASN1(&entry, cbasn1.SEQUENCE) || !entry.ReadASN1(&family, cbasn1.OCTET_STRING) {
			return nil, errAddressBlocks
		}
		if _, twice := blocks[string(family)]; twice {
			return nil, errAddressBlocks
		}
		size, err := addressSize(family)
		if err != nil {
			return nil, err
		}
		block, err := parseFamilyBlock(entry, size)
		if err != nil {
			return nil, err
		}
		blocks[string(family)] = block
	}
	return blocks, nil
}

// addressSize is the length of the addresses of a family: AFI, optional SAFI.
func addressSize(family []byte) (int, error) {
	if len(family) != 2 && len(family) != 3 {
		return 0, errAddressBlocks
	}
	switch {
	case family[0] == 0 && family[1] == 1:
		return 4, nil
	case family[0] == 0 && family[1] == 2:
		return 16, nil
	}
	return 0, fmt.Errorf("address family %x is not supported", family)
}

// parseFamilyBlock reads an IPAddressChoice.
func parseFamilyBlock(entry cryptobyte.String, size int) (familyBlock, error) {
	if entry.PeekASN1Tag(cbasn1.NULL) {
		var null cryptobyte.String
		if !entry.ReadASN1(&null, cbasn1.NULL) || !null.Empty() || !entry.Empty() {
			return familyBlock{}, errAddressBlocks
		}
		return familyBlock{inherit: true}, nil
	}
	var list cryptobyte.String
	if !entry.ReadASN1(&list, cbasn1.SEQUENCE) || !entry.Empty() {
		return familyBlock{}, errAddressBlocks
	}
	var block familyBlock
	for !list.Empty() {
		r, ok := parseAddressOrRange(&list, size)
		if !ok {
			return familyBlock{}, errAddressBlocks
		}
		// Ascending and not touching, as DER needs one encoding for one set.
		if n := len(block.ranges); n > 0 {
			if last := block.ranges[n-1].to; !last.Less(r.from) || last.Next() == r.from {
				return familyBlock{}, errAddressBlocks
			}
		}
		block.ranges = append(block.ranges, r)
	}
	return block, nil
}

// parseAddressOrRange reads an IPAddressOrRange: a prefix, or first and last
// address.
func parseAddressOrRange(list *cryptobyte.String, size int) (addressRange, bool) {
	if list.PeekASN1Tag(cbasn1.BIT_STRING) {
		var prefix asn1.BitString
		if !list.ReadASN1BitString(&prefix) {
			return addressRange{}, false
		}
		return bitRange(prefix, prefix, size)
	}
	var pair cryptobyte.String
	var low, high asn1.BitString
	if !list.ReadASN1(&pair, cbasn1.SEQUENCE) || !pair.ReadASN1BitString(&low) ||
		!pair.ReadASN1BitString(&high) || !pair.Empty() {
		return addressRange{}, false
	}
	return bitRange(low, high, size)
}

// bitRange fills up the missing bits: with zeros below, with ones above.
func bitRange(low, high asn1.BitString, size int) (addressRange, bool) {
	if low.BitLength > 8*size || high.BitLength > 8*size {
		return addressRange{}, false
	}
	from, to := make([]byte, size), make([]byte, size)
	copy(from, low.Bytes)
	copy(to, high.Bytes)
	for bit := high.BitLength; bit < 8*size; bit++ {
		to[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(from)
	b, _ := netip.AddrFromSlice(to)
	return addressRange{a, b}, a.Compare(b) <= 0
}
