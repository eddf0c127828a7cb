package pki

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// indexVersion is the version of the index file that this package writes.
const indexVersion = 1

// Kind is what a certificate is for.
type Kind string

// Kinds of certificates.
const (
	KindAuthority Kind = "authority"
	KindServer    Kind = "server"
	KindClient    Kind = "client"
)

// Certificate is an entry of the index.
type Certificate struct {
	Serial     string     `json:"serial"` // lower-case hex
	Kind       Kind       `json:"kind"`
	Name       string     `json:"name"`
	Identities []string   `json:"identities"` // as ike/auth writes them
	KeyType    string     `json:"key_type"`
	NotBefore  time.Time  `json:"not_before"`
	NotAfter   time.Time  `json:"not_after"`
	RevokedAt  *time.Time `json:"revoked_at,omitempty"`
	Reason     Reason     `json:"reason,omitempty"`
}

// Issued is when the certificate was made: it begins before.
func (c *Certificate) Issued() time.Time { return c.NotBefore.Add(backdate) }

// Revoked says whether the certificate is revoked.
func (c *Certificate) Revoked() bool { return c.RevokedAt != nil }

// Active says whether the certificate is good at a time.
func (c *Certificate) Active(now time.Time) bool {
	return !c.Revoked() && !now.Before(c.NotBefore) && !now.After(c.NotAfter)
}

// index is the content of the index file.
type index struct {
	Version int `json:"version"`
	// CRLNumber is the number of the last revocation list that was signed, or was
	// about to be: a list in the file with another number is not current.
	CRLNumber    int64         `json:"crl_number"`
	Certificates []Certificate `json:"certificates"`
}

func (a *Authority) readIndex() (*index, error) {
	data, err := os.ReadFile(a.path(indexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is missing: without it nothing can be revoked: restore it from a backup", a.path(indexFile))
	}
	if err != nil {
		return nil, err
	}
	ix, err := parseIndex(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.path(indexFile), err)
	}
	return ix, nil
}

func parseIndex(data []byte) (*index, error) {
	var ix index
	if err := json.Unmarshal(data, &ix); err != nil {
		return nil, fmt.Errorf("the index is damaged: %w", err)
	}
	if ix.Version != indexVersion {
		return nil, fmt.Errorf("the index has version %d, this program knows version %d: use the program that wrote it", ix.Version, indexVersion)
	}
	for _, c := range ix.Certificates {
		if _, err := parseSerial(c.Serial); err != nil {
			return nil, fmt.Errorf("the index is damaged: %w", err)
		}
	}
	return &ix, nil
}

func (a *Authority) writeIndex(ix *index) error {
	data, err := json.MarshalIndent(ix, "", "\t")
	if err != nil {
		return fmt.Errorf("encode index: %w", err)
	}
	return a.write(indexFile, append(data, '\n'))
}

// find returns the certificate with a serial number, in hex as certificate viewers
// show it, or nil. Names decide nothing here: several people may have similar ones.
func (ix *index) find(serial string) *Certificate {
	serial = strings.ToLower(strings.ReplaceAll(serial, ":", ""))
	for i := range ix.Certificates {
		if ix.Certificates[i].Serial == serial {
			return &ix.Certificates[i]
		}
	}
	return nil
}

// List returns all certificates that were issued, the oldest first.
func (a *Authority) List() ([]Certificate, error) {
	ix, err := a.readIndex()
	if err != nil {
		return nil, fmt.Errorf("list certificates: %w", err)
	}
	return ix.Certificates, nil
}

// Expiring returns what expires within a time, or has expired no longer ago than
// that, soonest first: certificates that are neither revoked nor replaced by one of
// the same kind and name that lives longer, and the authority's own.
func (a *Authority) Expiring(now time.Time, within time.Duration) ([]Certificate, error) {
	ix, err := a.readIndex()
	if err != nil {
		return nil, fmt.Errorf("look for expiring certificates: %w", err)
	}
	var out []Certificate
	for _, c := range append(ix.Certificates, entry(a.cert, KindAuthority, a.cert.Subject.CommonName)) {
		left := c.NotAfter.Sub(now)
		if left <= within && left >= -within && !c.Revoked() && !ix.replaced(c) {
			out = append(out, c)
		}
	}
	slices.SortStableFunc(out, func(a, b Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return out, nil
}

func (ix *index) replaced(c Certificate) bool {
	return slices.ContainsFunc(ix.Certificates, func(other Certificate) bool {
		return other.Kind == c.Kind && other.Name == c.Name && !other.Revoked() && other.NotAfter.After(c.NotAfter)
	})
}
