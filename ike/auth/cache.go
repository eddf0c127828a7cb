package auth

import (
	"container/list"
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"sync"
)

// Cache remembers what does not change: which chain of signatures leads from a
// peer's certificate to its authority, and that a configured revocation list is
// signed by its issuer. Whether the authority is still trusted, the dates, usage,
// revocation and the identity are checked anew each time, by VerifyChain.
//
// It is bounded, and safe for use by several goroutines. Use one with the same
// configuration only; a nil Cache remembers nothing.
type Cache struct {
	size int

	mu     sync.Mutex
	chains map[[sha256.Size]byte]*list.Element // of *cachedChain
	recent *list.List                          // least recently used at the back
	lists  map[listKey]*signedList             // nil value: does not verify
}

// cachedChain does without the certificate of the peer, which comes along with
// every proof, so that a peer costs little memory.
type cachedChain struct {
	leaf    [sha256.Size]byte
	issuers []*x509.Certificate // up to the root; empty if the peer is a root itself
}

// listKey identifies a list by its pointer, which the map keeps alive, and the
// issuer by its key.
type listKey struct {
	crl    *x509.RevocationList
	issuer [sha256.Size]byte
}

// maxLists bounds the combinations of revocation lists and issuers.
const maxLists = 256

// NewCache makes a cache for the chains of that many peers.
func NewCache(size int) *Cache {
	return &Cache{
		size:   max(size, 1),
		chains: make(map[[sha256.Size]byte]*list.Element),
		recent: list.New(),
		lists:  make(map[listKey]*signedList),
	}
}

// chain is the remembered chain that begins with a certificate, nil if there is
// none.
func (c *Cache) chain(leaf *x509.Certificate) []*x509.Certificate {
	if c == nil {
		return nil
	}
	key := sha256.Sum256(leaf.Raw)
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.chains[key]
	if !ok {
		return nil
	}
	c.recent.MoveToFront(e)
	return append([]*x509.Certificate{leaf}, e.Value.(*cachedChain).issuers...)
}

// addChain remembers a chain whose signatures were verified.
func (c *Cache) addChain(chain []*x509.Certificate) {
	if c == nil {
		return
	}
	key := sha256.Sum256(chain[0].Raw)
	issuers := slices.Clone(chain[1:])
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.chains[key]; ok {
		e.Value.(*cachedChain).issuers = issuers
		c.recent.MoveToFront(e)
		return
	}
	c.chains[key] = c.recent.PushFront(&cachedChain{key, issuers})
	if c.recent.Len() > c.size {
		oldest := c.recent.Remove(c.recent.Back()).(*cachedChain)
		delete(c.chains, oldest.leaf)
	}
}

// signedList is verifyList for configured lists, remembered and indexed.
func (c *Cache) signedList(crl *x509.RevocationList, issuer *x509.Certificate) (signedList, bool) {
	if c == nil {
		return verifyList(crl, issuer)
	}
	key := listKey{crl, sha256.Sum256(issuer.Raw)}
	c.mu.Lock()
	defer c.mu.Unlock()
	l, known := c.lists[key]
	if !known {
		// Under the lock, so that a burst of clients does not index a large list
		// many times over.
		if verified, ok := verifyList(crl, issuer); ok {
			verified.serials = indexSerials(crl)
			l = &verified
		}
		if len(c.lists) >= maxLists {
			clear(c.lists)
		}
		c.lists[key] = l
	}
	if l == nil {
		return signedList{}, false
	}
	return *l, true
}

func indexSerials(crl *x509.RevocationList) map[string]int {
	serials := make(map[string]int, len(crl.RevokedCertificateEntries))
	for i, e := range crl.RevokedCertificateEntries {
		serials[string(e.SerialNumber.Bytes())] = i
	}
	return serials
}
