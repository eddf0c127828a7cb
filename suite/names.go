package suite

import "fmt"

// The words below are the ones of proposal strings, so that what a log line
// shows can be pasted into a configuration. Unknown numbers are shown as such.

// String returns the algorithm's family in IANA's spelling, since the word used
// in proposals depends on the key length too: see Encr.String.
func (id EncrID) String() string {
	switch id {
	case EncrAESCBC:
		return "ENCR_AES_CBC"
	case EncrAESGCM16:
		return "ENCR_AES_GCM_16"
	case EncrChaCha20Poly1305:
		return "ENCR_CHACHA20_POLY1305"
	}
	return fmt.Sprintf("ENCR_%d", uint16(id))
}

// String returns the word for the cipher in a proposal, such as aes256gcm16.
func (e Encr) String() string {
	switch {
	case e.ID == EncrAESCBC && e.KeyBits != 0:
		return fmt.Sprintf("aes%d", e.KeyBits)
	case e.ID == EncrAESGCM16 && e.KeyBits != 0:
		return fmt.Sprintf("aes%dgcm16", e.KeyBits)
	case e.ID == EncrChaCha20Poly1305 && e.KeyBits == 0:
		return "chacha20poly1305"
	case e.KeyBits == 0:
		return e.ID.String()
	}
	return fmt.Sprintf("%v_%d", e.ID, e.KeyBits)
}

// String returns the word for the function in a proposal, such as prfsha256.
func (id PRFID) String() string {
	switch id {
	case PRFHMACSHA256:
		return "prfsha256"
	case PRFHMACSHA384:
		return "prfsha384"
	case PRFHMACSHA512:
		return "prfsha512"
	}
	return fmt.Sprintf("PRF_%d", uint16(id))
}

// String returns the word for the algorithm in a proposal, such as sha256.
func (id IntegID) String() string {
	switch id {
	case IntegNone:
		return "none"
	case IntegHMACSHA256:
		return "sha256"
	case IntegHMACSHA384:
		return "sha384"
	case IntegHMACSHA512:
		return "sha512"
	}
	return fmt.Sprintf("INTEG_%d", uint16(id))
}

// String returns the word for the method in a proposal, such as x25519.
func (id KEID) String() string {
	switch id {
	case KENone:
		return "none"
	case KEModp2048:
		return "modp2048"
	case KEModp3072:
		return "modp3072"
	case KEModp4096:
		return "modp4096"
	case KEP256:
		return "ecp256"
	case KEP384:
		return "ecp384"
	case KEP521:
		return "ecp521"
	case KECurve25519:
		return "x25519"
	}
	return fmt.Sprintf("KE_%d", uint16(id))
}

// String returns the name of the hash.
func (id HashID) String() string {
	switch id {
	case HashSHA256:
		return "sha256"
	case HashSHA384:
		return "sha384"
	case HashSHA512:
		return "sha512"
	case HashIdentity:
		return "identity"
	}
	return fmt.Sprintf("HASH_%d", uint16(id))
}

// String shows the outcome of a negotiation as a proposal with one choice.
func (a IKEAlgorithms) String() string {
	s := a.Encr.String()
	if a.Integ != IntegNone {
		s += "-" + a.Integ.String()
	}
	return s + "-" + a.PRF.String() + "-" + a.KE.String()
}

// String shows the outcome of a negotiation as a proposal with one choice.
func (a ESPAlgorithms) String() string {
	s := a.Encr.String()
	if a.Integ != IntegNone {
		s += "-" + a.Integ.String()
	}
	if a.KE != KENone {
		s += "-" + a.KE.String()
	}
	if a.ESN {
		return s + "-esn"
	}
	return s + "-noesn"
}
