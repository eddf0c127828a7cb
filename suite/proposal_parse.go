package suite

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Limits of proposal strings, which come from configuration files: SA payloads
// number proposals with one octet, and a peer has to look at every combination.
const (
	maxProposals    = 32
	maxProposalText = 4096
)

// Words that stand for whole lists of proposals.
const (
	wordModern = "modern"
	wordCompat = "compat"
)

// ParseIKEProposals reads a list of proposals for an IKE SA in strongSwan's
// spelling: proposals separated by commas, algorithms by hyphens, in order of
// preference. In "aes256-sha256-ecp256" sha256 is the integrity algorithm, and
// the pseudo-random function too since none is named; after an AEAD cipher it is
// the latter only. The words modern and compat stand for DefaultIKEProposals and
// CompatIKEProposals.
func ParseIKEProposals(s string) ([]IKEProposal, error) {
	return parseProposals(s, "IKE", parseIKEProposal, map[string]func() []IKEProposal{
		wordModern: DefaultIKEProposals, wordCompat: CompatIKEProposals,
	})
}

// ParseESPProposals reads a list of proposals for Child SAs, as
// ParseIKEProposals. Key exchange methods ask for perfect forward secrecy when a
// Child SA is rekeyed. Without esn or noesn both are offered, esn first.
func ParseESPProposals(s string) ([]ESPProposal, error) {
	return parseProposals(s, "ESP", parseESPProposal, map[string]func() []ESPProposal{
		wordModern: DefaultESPProposals, wordCompat: CompatESPProposals,
	})
}

func parseProposals[P any](s, protocol string, one func(string) (P, error), lists map[string]func() []P) ([]P, error) {
	if len(s) > maxProposalText {
		return nil, fmt.Errorf("list of %s proposals is longer than %d characters", protocol, maxProposalText)
	}
	var all []P
	for text := range strings.SplitSeq(s, ",") {
		text = strings.ToLower(strings.TrimSpace(text))
		if list, ok := lists[text]; ok {
			all = append(all, list()...)
			continue
		}
		p, err := one(text)
		if err != nil {
			return nil, fmt.Errorf("%s proposal %q: %w", protocol, text, err)
		}
		all = append(all, p)
	}
	if len(all) > maxProposals {
		return nil, fmt.Errorf("%d %s proposals, at most %d are possible: put alternatives into one proposal, as in aes256-aes128-sha256-ecp256",
			len(all), protocol, maxProposals)
	}
	return all, nil
}

// algorithmWords are all algorithms that one proposal names, by type.
type algorithmWords struct {
	encr  []Encr
	integ []IntegID
	prf   []PRFID
	ke    []KEID
	esn   []bool
}

// word is what a word of a proposal adds.
type word struct {
	text string
	add  func(*algorithmWords) bool // false: the proposal has it already
}

// addOnce appends an algorithm that is not in the list yet.
func addOnce[T comparable](list *[]T, v T) bool {
	if slices.Contains(*list, v) {
		return false
	}
	*list = append(*list, v)
	return true
}

func encrWord(text string, id EncrID, bits int) word {
	return word{text, func(a *algorithmWords) bool { return addOnce(&a.encr, Encr{id, bits}) }}
}
func integWord(text string, id IntegID) word {
	return word{text, func(a *algorithmWords) bool { return addOnce(&a.integ, id) }}
}
func prfWord(text string, id PRFID) word {
	return word{text, func(a *algorithmWords) bool { return addOnce(&a.prf, id) }}
}
func keWord(text string, id KEID) word {
	return word{text, func(a *algorithmWords) bool { return addOnce(&a.ke, id) }}
}
func esnWord(text string, esn bool) word {
	return word{text, func(a *algorithmWords) bool { return addOnce(&a.esn, esn) }}
}

// words are all words that proposals are made of. Where two mean the same, the
// first is what String writes.
var words = []word{
	encrWord("aes128gcm16", EncrAESGCM16, 128),
	encrWord("aes256gcm16", EncrAESGCM16, 256),
	encrWord("aes128gcm", EncrAESGCM16, 128),
	encrWord("aes256gcm", EncrAESGCM16, 256),
	encrWord("aes128gcm128", EncrAESGCM16, 128), // ICV in bits
	encrWord("aes256gcm128", EncrAESGCM16, 256),
	encrWord("chacha20poly1305", EncrChaCha20Poly1305, 0),
	encrWord("aes128", EncrAESCBC, 128),
	encrWord("aes256", EncrAESCBC, 256),

	integWord("sha256", IntegHMACSHA256),
	integWord("sha384", IntegHMACSHA384),
	integWord("sha512", IntegHMACSHA512),
	integWord("sha2_256", IntegHMACSHA256),
	integWord("sha2_384", IntegHMACSHA384),
	integWord("sha2_512", IntegHMACSHA512),

	prfWord("prfsha256", PRFHMACSHA256),
	prfWord("prfsha384", PRFHMACSHA384),
	prfWord("prfsha512", PRFHMACSHA512),

	keWord("x25519", KECurve25519),
	keWord("curve25519", KECurve25519),
	keWord("ecp256", KEP256),
	keWord("ecp384", KEP384),
	keWord("ecp521", KEP521),
	keWord("modp2048", KEModp2048),
	keWord("modp3072", KEModp3072),
	keWord("modp4096", KEModp4096),

	esnWord("esn", true),
	esnWord("noesn", false),
}

// refused are words that users of other implementations may try, and why they
// are not for us.
var refused = map[string]string{
	"aes":      "name the key length: aes128 or aes256",
	"aesgcm":   "name the key length: aes128gcm16 or aes256gcm16",
	"aes192":   "192-bit keys are not recommended (RFC 8247), use aes256",
	"3des":     "it is too weak, use aes256",
	"des":      "it is too weak, use aes256",
	"md5":      "it is too weak, use sha256",
	"sha1":     "it is too weak, use sha256",
	"sha":      "it is too weak, use sha256",
	"prfmd5":   "it is too weak, use prfsha256",
	"prfsha1":  "it is too weak, use prfsha256",
	"modp768":  "it is too weak, use modp2048 or better",
	"modp1024": "it is too weak, use modp2048 or better",
	"modp1536": "it is too weak, use modp2048 or better",
}

// scanWords splits one proposal into algorithms.
func scanWords(text string) (algorithmWords, error) {
	var a algorithmWords
	if text == "" {
		return a, errors.New("it is empty")
	}
	for w := range strings.SplitSeq(text, "-") {
		if w == wordModern || w == wordCompat {
			return a, fmt.Errorf("%s stands for whole proposals: separate it by a comma", w)
		}
		if why, ok := refused[w]; ok {
			return a, fmt.Errorf("%q is not supported: %s", w, why)
		}
		i := slices.IndexFunc(words, func(known word) bool { return known.text == w })
		if i < 0 {
			return a, fmt.Errorf("unknown algorithm %q, did you mean %q?", w, nearestWord(w))
		}
		if !words[i].add(&a) {
			return a, fmt.Errorf("%q is there twice", w)
		}
	}
	return a, nil
}

// checkCiphers makes sure that there is a cipher, and that AEAD ciphers stand
// alone (RFC 5282 §8, RFC 7296 §3.3).
func (a *algorithmWords) checkCiphers() error {
	if len(a.encr) == 0 {
		return errors.New("it names no cipher, such as aes256gcm16")
	}
	for _, e := range a.encr {
		if e.AEAD() != a.encr[0].AEAD() {
			return fmt.Errorf("%v and %v cannot be in one proposal, since only one of them takes an integrity algorithm: make it two, separated by a comma",
				a.encr[0], e)
		}
	}
	if !a.aead() && len(a.integ) == 0 {
		return fmt.Errorf("%v needs an integrity algorithm, such as sha256", a.encr[0])
	}
	return nil
}

func (a *algorithmWords) aead() bool { return a.encr[0].AEAD() }

func parseIKEProposal(text string) (IKEProposal, error) {
	a, err := scanWords(text)
	if err != nil {
		return IKEProposal{}, err
	}
	if err := a.checkCiphers(); err != nil {
		return IKEProposal{}, err
	}
	if len(a.esn) > 0 {
		return IKEProposal{}, errors.New("esn and noesn are for ESP only")
	}
	if len(a.ke) == 0 {
		return IKEProposal{}, errors.New("it names no key exchange method, such as x25519")
	}
	explicitPRF := len(a.prf) > 0
	if !explicitPRF {
		a.prf = impliedPRFs(a.integ)
	}
	if len(a.prf) == 0 {
		return IKEProposal{}, errors.New("it names no pseudo-random function, such as prfsha256")
	}
	if a.aead() {
		if explicitPRF && len(a.integ) > 0 {
			return IKEProposal{}, fmt.Errorf("%v takes no integrity algorithm, remove %v", a.encr[0], a.integ[0])
		}
		a.integ = nil // it named the function
	}
	return IKEProposal{Encr: a.encr, Integ: a.integ, PRF: a.prf, KE: a.ke}, nil
}

// impliedPRFs are the functions that go with integrity algorithms by the same
// hash.
func impliedPRFs(integ []IntegID) []PRFID {
	var prfs []PRFID
	for _, id := range integ {
		switch id {
		case IntegHMACSHA256:
			prfs = append(prfs, PRFHMACSHA256)
		case IntegHMACSHA384:
			prfs = append(prfs, PRFHMACSHA384)
		case IntegHMACSHA512:
			prfs = append(prfs, PRFHMACSHA512)
		}
	}
	return prfs
}

// bothESN is what a proposal accepts that says nothing about sequence numbers.
var bothESN = []bool{true, false}

func parseESPProposal(text string) (ESPProposal, error) {
	a, err := scanWords(text)
	if err != nil {
		return ESPProposal{}, err
	}
	if err := a.checkCiphers(); err != nil {
		return ESPProposal{}, err
	}
	if len(a.prf) > 0 {
		return ESPProposal{}, fmt.Errorf("%v is for IKE only: ESP uses the function of its IKE SA", a.prf[0])
	}
	if a.aead() && len(a.integ) > 0 {
		return ESPProposal{}, fmt.Errorf("%v takes no integrity algorithm, remove %v", a.encr[0], a.integ[0])
	}
	if len(a.esn) == 0 {
		a.esn = slices.Clone(bothESN)
	}
	return ESPProposal{Encr: a.encr, Integ: a.integ, KE: a.ke, ESN: a.esn}, nil
}

// nearestWord returns the known word with the least edit distance to w.
func nearestWord(w string) string {
	if len(w) > 64 {
		w = w[:64]
	}
	best, least := "", len(w)+64
	for _, known := range words {
		if d := editDistance(w, known.text); d < least {
			best, least = known.text, d
		}
	}
	return best
}

// editDistance is the number of octets to insert, remove or replace to turn a
// into b (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
