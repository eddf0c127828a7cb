package locator

import "time"

// path is what an entry knows about one pair.
type path struct {
	pair    Pair
	local   *local
	foreign *foreign
	rank    rank
	atBest  rank // the rank if a NAT nobody has looked for is not there

	verification Verification
	reach        Reachability
	nat          NAT
	why          Cause
	hot          bool
	samples      uint8 // of the round trip, saturating
	beats        uint8 // keepalives sent, for ProofEvery
	failures     uint8 // times it failed while current
	jitter       int8  // share of the next idle interval, in 1/128 of jitterShare
	attempts     uint16

	srtt, rttvar time.Duration
	keepalive    time.Duration // zero: the policy's

	bornAt      instant
	heardAt     instant
	answeredAt  instant
	probedAt    instant
	beatAt      instant
	measuredAt  instant
	sinceAt     instant // of the present reachability
	verifiedAt  instant
	askedAt     instant // somebody wants a probe at that time
	shorterAt   instant // round trip shorter than the current pair's since
	failedAt    instant // last failed while current
	rejectedAt  instant // the peer did not accept it
	batch       uint32  // number of the Probe that it was last part of
	probes      uint32
	answers     uint32
	heardCount  uint64
	keepalives  uint32
	mappingLost uint16
}

// rttGranularity is the clock granularity G of RFC 6298 §2.
const rttGranularity = time.Millisecond

// measure takes a round-trip sample (RFC 6298 §2, with its alpha and beta). Samples
// of requests that were sent more than once over the pair say nothing (Karn's
// algorithm, §3); the caller leaves them out.
func (p *path) measure(t instant, rtt time.Duration) {
	if rtt <= 0 {
		return
	}
	p.measuredAt = t
	if p.samples == 0 {
		p.srtt, p.rttvar = rtt, rtt/2
	} else {
		p.rttvar = (3*p.rttvar + (p.srtt - rtt).Abs()) / 4
		p.srtt = (7*p.srtt + rtt) / 8
	}
	if p.samples < 255 {
		p.samples++
	}
}

// timeout is the retransmission timeout of RFC 6298 without its floor of a
// second, which is too long for moving within one.
func (p *path) timeout() time.Duration {
	return p.srtt + max(rttGranularity, 4*p.rttvar)
}

// become sets the reachability and remembers why and since when.
func (p *path) become(t instant, r Reachability, why Cause) {
	if p.reach == r {
		return
	}
	p.reach, p.why, p.sinceAt = r, why, t
}

// lastOut returns when the last packet that we know of was sent on the pair.
func (p *path) lastOut() instant { return max(p.probedAt, p.beatAt, p.bornAt) }

// provenAt returns when the peer was last proven to be at the foreign address.
func (p *path) provenAt() instant { return p.foreign.provenAt }

// usable says whether the pair may be considered at all.
func (p *path) usable() bool { return !p.foreign.expired }

// ready says whether traffic could move to the pair without a question left.
func (p *path) ready() bool {
	return p.usable() && p.verification == Verified && p.reach == Operational
}
