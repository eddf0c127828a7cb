package ike

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
)

// cookieLifetime is how long a secret makes new cookies; its cookies are accepted
// for as long again.
const cookieLifetime = 60 * time.Second

// cookieJar makes and checks the cookies of RFC 7296 §2.6: version, then
// HMAC-SHA-256(secret, Ni | IPi | port | SPIi). Nothing is kept per peer.
type cookieJar struct {
	version  uint32
	secret   []byte
	previous []byte
	since    time.Time
}

const cookieLen = 4 + 16

// rotate brings the secret up to date.
func (j *cookieJar) rotate(now time.Time, random func(int) []byte) {
	switch {
	case j.secret == nil || now.Sub(j.since) >= 2*cookieLifetime:
		j.secret, j.previous = random(32), random(32)
	case now.Sub(j.since) >= cookieLifetime:
		j.secret, j.previous = random(32), j.secret
	default:
		return
	}
	j.version++
	j.since = now
}

func (j *cookieJar) make(from netip.AddrPort, spii message.SPI, ni []byte) []byte {
	return cookie(j.secret, j.version, from, spii, ni)
}

// check says whether a cookie is one of ours for that sender.
func (j *cookieJar) check(got []byte, from netip.AddrPort, spii message.SPI, ni []byte) bool {
	if len(got) != cookieLen {
		return false
	}
	version := binary.BigEndian.Uint32(got)
	secret := j.secret
	switch version {
	case j.version:
	case j.version - 1:
		secret = j.previous
	default:
		return false
	}
	return hmac.Equal(got, cookie(secret, version, from, spii, ni))
}

func cookie(secret []byte, version uint32, from netip.AddrPort, spii message.SPI, ni []byte) []byte {
	m := hmac.New(sha256.New, secret)
	var b [16 + 2 + 8]byte
	addr := from.Addr().As16()
	copy(b[:], addr[:])
	binary.BigEndian.PutUint16(b[16:], from.Port())
	binary.BigEndian.PutUint64(b[18:], uint64(spii))
	m.Write(b[:])
	m.Write(ni)
	out := binary.BigEndian.AppendUint32(make([]byte, 0, 4+sha256.Size), version)
	return m.Sum(out)[:cookieLen]
}
