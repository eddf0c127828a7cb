package ike

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// Quick crash detection (RFC 6290): a gateway that restarted has lost its IKE SAs,
// and its clients would otherwise find out only when a liveness check has gone
// unanswered for minutes. With each IKE SA it hands out a token that it can make
// again from the SPIs and a secret that survives restarts; a message for an IKE SA
// it does not know is answered with that token, in clear, and who holds the same
// token drops the SA at once.
//
// Such an answer goes to a source that is not proved, so it is given sparingly.
// Our SPIs carry two marks: one that shows we chose them, now or before a restart,
// and one of the present run. Only an SPI of ours from an earlier run is answered:
// an SA of the present run that is gone was closed, and its replayed messages
// deserve silence. Those given up because the peer was away for too long are the
// exception: that peer does not know, and is to connect anew at once when it is back.

const (
	crashTokenLen = 16
	maxCrashToken = 128 // RFC 6290 §5
	maxTokens     = 4   // in one message, RFC 6290 §4.5
)

// crashDetector makes tokens and marks SPIs. Without a secret it does nothing.
type crashDetector struct {
	secret []byte
	run    [8]byte
	given  map[message.SPI]struct{} // our SPIs of sessions that were given up
}

// maxGivenUp bounds what is remembered of peers that may never come back.
const maxGivenUp = 4096

// giveUp remembers that the peer of an IKE SA does not know of its end.
func (d *crashDetector) giveUp(own message.SPI) {
	if d.secret == nil {
		return
	}
	if d.given == nil {
		d.given = make(map[message.SPI]struct{})
	}
	for old := range d.given {
		if len(d.given) < maxGivenUp {
			break
		}
		delete(d.given, old)
	}
	d.given[own] = struct{}{}
}

// lost says whether the peer of an IKE SA that is not there may believe in it still.
func (d *crashDetector) lost(own message.SPI) bool {
	_, given := d.given[own]
	return given || d.earlier(own)
}

func newCrashDetector(secret, run []byte) crashDetector {
	d := crashDetector{secret: secret}
	copy(d.run[:], run)
	return d
}

func (d *crashDetector) mac(label string, parts ...[]byte) []byte {
	m := hmac.New(sha256.New, d.secret)
	m.Write([]byte(label))
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)
}

// token is the secret that belongs to an IKE SA (RFC 6290 §5.1).
func (d *crashDetector) token(spii, spir message.SPI) []byte {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(spii))
	binary.BigEndian.PutUint64(b[8:], uint64(spir))
	return d.mac("token", b[:])[:crashTokenLen]
}

// mark writes the marks into octets 4 to 6 of an SPI; octets 0 to 3 stay random
// and 7 is the shard's.
func (d *crashDetector) mark(spi message.SPI) message.SPI {
	if d.secret == nil {
		return spi
	}
	ours, run := d.marks(spi)
	return spi&^0xffffff00 | message.SPI(ours)<<16 | message.SPI(run)<<8
}

func (d *crashDetector) marks(spi message.SPI) (ours uint16, run uint8) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(spi))
	ours = binary.BigEndian.Uint16(d.mac("ours", b[:4]))
	run = d.mac("run", d.run[:], b[:4])[0]
	return ours, run
}

// earlier says whether we chose an SPI before the last restart.
func (d *crashDetector) earlier(spi message.SPI) bool {
	if d.secret == nil {
		return false
	}
	ours, run := d.marks(spi)
	return uint16(spi>>16) == ours && uint8(spi>>8) != run
}

// notify is the token as it goes to the peer, nil without a secret.
func (d *crashDetector) notify(spii, spir message.SPI) *message.Notify {
	if d.secret == nil {
		return nil
	}
	return &message.Notify{Protocol: message.ProtoIKE, Kind: message.QuickCrashDetection, Data: d.token(spii, spir)}
}

// answerUnknown tells the sender of a request for an IKE SA that was lost that it is
// gone (RFC 6290 §4.5). The answer is no longer than the request.
func (e *Engine) answerUnknown(now time.Time, pair locator.Pair, h message.Header, data []byte) {
	own := h.SPIi
	if h.FromInitiator() {
		own = h.SPIr
	}
	sealed := h.NextPayload == message.TypeSK || h.NextPayload == message.TypeSKF
	if h.Response() || !sealed || !e.crash.lost(own) || !e.limits.tokens.Allow(now) {
		return
	}
	m := message.Message{Header: message.Header{
		SPIi: h.SPIi, SPIr: h.SPIr, Major: 2, Exchange: h.Exchange, MessageID: h.MessageID,
		Flags: message.FlagResponse | (h.Flags&message.FlagInitiator ^ message.FlagInitiator),
	}, Payloads: []message.Payload{
		&message.Notify{Protocol: message.ProtoIKE, Kind: message.InvalidIKESPI},
		e.crash.notify(h.SPIi, h.SPIr),
	}}
	b, err := m.Append(nil)
	if err != nil || len(b) > len(data)+crashTokenLen {
		return
	}
	e.act(Send{Pair: pair, Data: b})
}

// keepToken remembers the token that the peer sent for an IKE SA.
func (sa *ikeSA) keepToken(in []message.Payload) {
	n := message.FindNotify(in, message.QuickCrashDetection)
	if n != nil && len(n.Data) >= crashTokenLen && len(n.Data) <= maxCrashToken {
		sa.crashToken = n.Data
	}
}

// peerRestarted looks at an unprotected answer to the request in flight. With the
// right token it ends the session; anything else has no effect (RFC 6290 §4.5).
func (sa *ikeSA) peerRestarted(now time.Time, m *message.Message) bool {
	if sa.crashToken == nil || !m.Response() || !sa.awaits(&m.Header) ||
		message.FindNotify(m.Payloads, message.InvalidIKESPI) == nil {
		return false
	}
	for i, n := range message.Notifies(m.Payloads) {
		if i > maxTokens || n.Kind != message.QuickCrashDetection {
			continue
		}
		if subtle.ConstantTimeCompare(n.Data, sa.crashToken) == 1 {
			sa.session.finish(now, reason.PeerDead, 0, "the peer has lost the session: it has restarted, or it gave us up")
			return true
		}
	}
	return false
}

// announceToken sends our token for an IKE SA that we made by a rekey of our own
// (RFC 6290 §4.3).
func (sa *ikeSA) announceToken(now time.Time) {
	if sa.session.engine.crash.secret != nil {
		sa.enqueue(now, tokenRequest{})
	}
}

// tokenRequest tells the peer our token for the IKE SA that it goes out on.
type tokenRequest struct{}

func (tokenRequest) exchange() message.ExchangeType { return message.Informational }

func (tokenRequest) prepare(now time.Time, sa *ikeSA) {
	sa.transmit(now, []message.Payload{sa.session.engine.crash.notify(sa.spii, sa.spir)})
}

func (tokenRequest) response(time.Time, *ikeSA, *Exchange) {}
func (tokenRequest) unanswered(now time.Time, sa *ikeSA)   { sa.peerSilent(now) }
