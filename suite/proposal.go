package suite

import (
	"fmt"
	"slices"
	"strings"
)

// DefaultIKEProposals are the modern proposals: AEAD ciphers, SHA-2, and elliptic
// curves. The list is a copy.
func DefaultIKEProposals() []IKEProposal {
	return []IKEProposal{{
		Encr: modernCiphers(),
		PRF:  []PRFID{PRFHMACSHA256, PRFHMACSHA384, PRFHMACSHA512},
		KE:   modernKE(),
	}}
}

// DefaultESPProposals are the modern proposals for Child SAs. The first asks for
// perfect forward secrecy where the exchange has a place for it, when a Child SA
// is made or rekeyed by CREATE_CHILD_SA; the second is for peers that do without.
// In IKE_AUTH both say the same, and are sent as one (RFC 7296 §1.2).
func DefaultESPProposals() []ESPProposal {
	return []ESPProposal{
		{Encr: modernCiphers(), KE: modernKE(), ESN: slices.Clone(bothESN)},
		{Encr: modernCiphers(), ESN: slices.Clone(bothESN)},
	}
}

// CompatIKEProposals are for peers that do not know the modern ones: CBC with
// HMAC, and MODP groups, which is what clients set up by hand on phones and
// desktops offer. They are meant to follow DefaultIKEProposals.
func CompatIKEProposals() []IKEProposal {
	prfs := []PRFID{PRFHMACSHA256, PRFHMACSHA384, PRFHMACSHA512}
	return []IKEProposal{
		{
			Encr: modernCiphers(),
			PRF:  prfs,
			KE:   []KEID{KEP521, KEModp2048, KEModp3072, KEModp4096},
		},
		{
			Encr:  cbcCiphers(),
			Integ: hmacs(),
			PRF:   slices.Clone(prfs),
			KE:    append(modernKE(), KEP521, KEModp2048, KEModp3072, KEModp4096),
		},
	}
}

// CompatESPProposals are for peers that do not know the modern ones. They are
// meant to follow DefaultESPProposals.
func CompatESPProposals() []ESPProposal {
	all := append(modernKE(), KEP521, KEModp2048, KEModp3072, KEModp4096)
	return []ESPProposal{
		{
			Encr: modernCiphers(),
			KE:   slices.Clone(all[len(modernKE()):]),
			ESN:  slices.Clone(bothESN),
		},
		{Encr: cbcCiphers(), Integ: hmacs(), KE: all, ESN: slices.Clone(bothESN)},
		{Encr: cbcCiphers(), Integ: hmacs(), ESN: slices.Clone(bothESN)},
	}
}

func modernCiphers() []Encr {
	return []Encr{{EncrAESGCM16, 256}, {EncrAESGCM16, 128}, {EncrChaCha20Poly1305, 0}}
}

func modernKE() []KEID { return []KEID{KECurve25519, KEP256, KEP384} }

func cbcCiphers() []Encr { return []Encr{{EncrAESCBC, 256}, {EncrAESCBC, 128}} }

func hmacs() []IntegID { return []IntegID{IntegHMACSHA256, IntegHMACSHA384, IntegHMACSHA512} }

// String returns the proposal as ParseIKEProposals reads it.
func (p IKEProposal) String() string {
	var w []string
	w = appendWords(w, p.Encr)
	w = appendWords(w, p.Integ)
	if len(p.Integ) == 0 || !slices.Equal(p.PRF, impliedPRFs(p.Integ)) {
		w = appendWords(w, p.PRF)
	}
	w = appendWords(w, p.KE)
	return strings.Join(w, "-")
}

// String returns the proposal as ParseESPProposals reads it.
func (p ESPProposal) String() string {
	var w []string
	w = appendWords(w, p.Encr)
	w = appendWords(w, p.Integ)
	w = appendWords(w, p.KE)
	if !slices.Equal(p.ESN, bothESN) {
		for _, esn := range p.ESN {
			if esn {
				w = append(w, "esn")
			} else {
				w = append(w, "noesn")
			}
		}
	}
	return strings.Join(w, "-")
}

func appendWords[T fmt.Stringer](w []string, list []T) []string {
	for _, v := range list {
		w = append(w, v.String())
	}
	return w
}
