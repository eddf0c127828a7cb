package server

import (
	"fmt"

	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/internal/config"
)

// keyring holds pre-shared keys. It is not changed once in use, so the engines read
// it without a lock.
type keyring struct {
	exact    map[string]config.Secret // by auth.Identity.Key
	patterns []patternKey             // in the order of the configuration
}

type patternKey struct {
	pattern auth.Pattern
	secret  config.Secret
}

// add adds a key for an identity or a pattern.
func (k *keyring) add(id string, secret config.Secret) error {
	pattern, err := auth.ParsePattern(id)
	if err != nil {
		return err
	}
	exact, ok := pattern.Exact()
	if !ok {
		for _, p := range k.patterns {
			if p.pattern.String() == pattern.String() {
				return fmt.Errorf("there is a key for %s already", id)
			}
		}
		k.patterns = append(k.patterns, patternKey{pattern, secret})
		return nil
	}
	if _, twice := k.exact[exact.Key()]; twice {
		return fmt.Errorf("there is a key for %s already", id)
	}
	if k.exact == nil {
		k.exact = map[string]config.Secret{}
	}
	k.exact[exact.Key()] = secret
	return nil
}

// find returns the key of an identity: its own, or that of the first pattern that
// matches.
func (k *keyring) find(id auth.Identity) ([]byte, bool) {
	if s, ok := k.exact[id.Key()]; ok {
		return s.Bytes(), true
	}
	for _, p := range k.patterns {
		if p.pattern.Match(id) {
			return p.secret.Bytes(), true
		}
	}
	return nil, false
}

func (k *keyring) empty() bool { return len(k.exact) == 0 && len(k.patterns) == 0 }

// only returns the key if there is just one, however many identities it is for.
func (k *keyring) only() (secret []byte, ok bool) {
	var all []config.Secret
	for _, s := range k.exact {
		all = append(all, s)
	}
	for _, p := range k.patterns {
		all = append(all, p.secret)
	}
	for _, s := range all {
		if !s.Equal(all[0]) {
			return nil, false
		}
	}
	if len(all) == 0 {
		return nil, false
	}
	return all[0].Bytes(), true
}

// knows says whether a fingerprint is that of the key of an identity, as it is now.
func (k *keyring) knows(id auth.Identity, f auth.KeyFingerprint) bool {
	secret, ok := k.find(id)
	return ok && f == auth.FingerprintOf(secret)
}
