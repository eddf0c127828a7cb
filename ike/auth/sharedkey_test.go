package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

func testPRF(t testing.TB, id suite.PRFID) suite.PRF {
	t.Helper()
	prf, err := suite.NewPRF(id)
	if err != nil {
		t.Fatal(err)
	}
	return prf
}

// TestSharedKeyAuthByFormula computes RFC 7296 §2.15 from its text, with nothing
// but HMAC-SHA-256: prf(prf(secret, "Key Pad for IKEv2"), message | nonce |
// prf(SK_p, type | reserved | data)).
func TestSharedKeyAuthByFormula(t *testing.T) {
	mac := func(key, data string) string {
		h := hmac.New(sha256.New, []byte(key))
		h.Write([]byte(data))
		return string(h.Sum(nil))
	}
	prf := testPRF(t, suite.PRFHMACSHA256)
	id := mustIdentity(t, "laptop@example.test").Payload(false)
	octets := SignedOctets(prf, []byte("SK_pi"), []byte("message 1"), []byte("nonce r"), id)
	wantOctets := "message 1" + "nonce r" + mac("SK_pi", "\x03\x00\x00\x00laptop@example.test")
	if string(octets) != wantOctets {
		t.Fatalf("signed octets %x, want %x", octets, wantOctets)
	}
	want := mac(mac("secret", "Key Pad for IKEv2"), wantOctets)
	if got := SharedKeyAuth(prf, []byte("secret"), octets); string(got) != want {
		t.Errorf("AUTH %x, want %x", got, want)
	}
}

func TestVerifySharedKey(t *testing.T) {
	for _, id := range []suite.PRFID{suite.PRFHMACSHA256, suite.PRFHMACSHA384, suite.PRFHMACSHA512} {
		prf := testPRF(t, id)
		octets, secret := []byte("octets"), []byte("secret")
		good := SharedKeyAuth(prf, secret, octets)
		flipped := append([]byte{good[0] ^ 1}, good[1:]...)
		for _, tc := range []struct {
			name           string
			a              message.Auth
			secret, octets string
			want           error
		}{
			{"good", message.Auth{Method: message.AuthSharedKey, Data: good}, "secret", "octets", nil},
			{"other secret", message.Auth{Method: message.AuthSharedKey, Data: good}, "Secret", "octets", ErrWrongSharedKey},
			{"other octets", message.Auth{Method: message.AuthSharedKey, Data: good}, "secret", "octet", ErrWrongSharedKey},
			{"flipped", message.Auth{Method: message.AuthSharedKey, Data: flipped}, "secret", "octets", ErrWrongSharedKey},
			{"truncated", message.Auth{Method: message.AuthSharedKey, Data: good[:len(good)-1]}, "secret", "octets", ErrWrongSharedKey},
			{"longer", message.Auth{Method: message.AuthSharedKey, Data: append(good[:len(good):len(good)], 0)}, "secret", "octets", ErrWrongSharedKey},
			{"empty", message.Auth{Method: message.AuthSharedKey}, "secret", "octets", ErrWrongSharedKey},
			{"other method", message.Auth{Method: message.AuthRSA, Data: good}, "secret", "octets", ErrMethodRefused},
			{"no secret", message.Auth{Method: message.AuthSharedKey, Data: SharedKeyAuth(prf, nil, octets)}, "", "octets", ErrNoSharedKey},
		} {
			err := VerifySharedKey(&tc.a, prf, []byte(tc.secret), []byte(tc.octets))
			if !errors.Is(err, tc.want) {
				t.Errorf("%v, %s: got %v, want %v", id, tc.name, err, tc.want)
			}
		}
	}
}

func TestRemoteSharedKey(t *testing.T) {
	alice := mustIdentity(t, "alice@example.test")
	pattern, err := ParsePattern("*@example.test")
	if err != nil {
		t.Fatal(err)
	}
	lookup := func(id Identity) ([]byte, bool) {
		if id.Equal(alice) {
			return []byte("secret"), true
		}
		return nil, id.String() == "empty@example.test"
	}
	for _, tc := range []struct {
		name   string
		remote Remote
		id     string
		want   error
	}{
		{"found", Remote{ID: pattern, AllowPSK: true, PSK: lookup}, "Alice@example.test", nil},
		{"not found", Remote{ID: pattern, AllowPSK: true, PSK: lookup}, "bob@example.test", ErrNoSharedKey},
		{"empty key", Remote{ID: pattern, AllowPSK: true, PSK: lookup}, "empty@example.test", ErrNoSharedKey},
		{"not expected", Remote{ID: pattern, AllowPSK: true, PSK: lookup}, "alice@example.com", ErrIdentityMismatch},
		{"no lookup", Remote{ID: pattern, AllowPSK: true}, "alice@example.test", ErrNoSharedKey},
		{"not allowed", Remote{ID: pattern, PSK: lookup}, "alice@example.test", ErrMethodRefused},
		{"zero value", Remote{}, "alice@example.test", ErrMethodRefused},
	} {
		secret, err := tc.remote.SharedKey(mustIdentity(t, tc.id))
		if !errors.Is(err, tc.want) || (string(secret) == "secret") != (tc.want == nil) {
			t.Errorf("%s: got %q, %v", tc.name, secret, err)
		}
	}
	r := Remote{ID: pattern, AllowPSK: true, PSK: lookup}
	if _, err := r.SharedKey(Identity{message.IDRFC822, []byte("a\x00@example.test")}); !errors.Is(err, ErrBadIdentity) {
		t.Errorf("malformed identity: %v", err)
	}
}
