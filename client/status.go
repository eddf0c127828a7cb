package client

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/datapath"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// State is what the tunnel is in.
type State string

// States. Only in Connected does the tunnel provably carry traffic.
const (
	Disconnected  State = "disconnected"
	Connecting    State = "connecting"
	Connected     State = "connected"
	Degraded      State = "degraded"
	Reconnecting  State = "reconnecting"
	Disconnecting State = "disconnecting"
)

// Status is what the daemon tells of itself. Its JSON form is an interface: fields
// are added, but keep their meaning.
type Status struct {
	Version string `json:"version"`
	State   State  `json:"state"`
	// Connected says that the gateway is authenticated and answers.
	Connected bool   `json:"connected"`
	Profile   string `json:"profile,omitempty"`
	// Generation counts the "up" commands; it tells their results apart.
	Generation uint64 `json:"generation"`
	// Step says what is being done at the moment.
	Step  string     `json:"step,omitempty"`
	Since *time.Time `json:"since,omitempty"` // of the session, if there is one

	Server    string    `json:"server,omitempty"` // as in the profile
	LocalID   string    `json:"local_id,omitempty"`
	RemoteID  string    `json:"remote_id,omitempty"`
	SPIi      string    `json:"spi_i,omitempty"` // 16 hexadecimal digits
	SPIr      string    `json:"spi_r,omitempty"`
	Local     *Endpoint `json:"local,omitempty"`
	Remote    *Endpoint `json:"remote,omitempty"`
	Algorithm string    `json:"algorithms,omitempty"`
	NAT       *NAT      `json:"nat,omitempty"`
	// Encapsulation is "udp" (RFC 3948) or "esp" (protocol 50).
	Encapsulation string   `json:"encapsulation,omitempty"`
	Extensions    []string `json:"extensions,omitempty"`

	Interface string `json:"interface,omitempty"`
	MTU       int    `json:"mtu,omitempty"` // of the interface
	// PathMTU is the largest packet that the path is known to carry to the gateway.
	PathMTU int `json:"path_mtu,omitempty"`
	// DataPath says who seals and opens packets, and why.
	DataPath  *datapath.Choice `json:"datapath,omitempty"`
	Addresses []netip.Addr     `json:"addresses"`
	DNS       []netip.Addr     `json:"dns"`
	Domains   []string         `json:"domains,omitempty"`
	Routes    []netip.Prefix   `json:"routes"`
	Blocked   []netip.Prefix   `json:"blocked,omitempty"` // wanted in the tunnel, not carried by the gateway
	Children  []Child          `json:"children"`
	Traffic   *Traffic         `json:"traffic,omitempty"`

	// Handover is the last move to another path.
	Handover *Handover `json:"handover,omitempty"`

	// Problem is why the state is degraded or not connected any more.
	Problem *Problem `json:"problem,omitempty"`
	// LastError is the last failure, also when it has been overcome.
	LastError *Problem   `json:"last_error,omitempty"`
	RetryAt   *time.Time `json:"retry_at,omitempty"`
	Warnings  []string   `json:"warnings,omitempty"`
}

// Endpoint is one end of the outer path.
type Endpoint struct {
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port"`
}

// NAT says where address translators stand (RFC 7296 §2.23).
type NAT struct {
	Local  bool `json:"local"`
	Remote bool `json:"remote"`
}

// Child is a Child SA that carries traffic.
type Child struct {
	SPIIn     string   `json:"spi_in"` // 8 hexadecimal digits
	SPIOut    string   `json:"spi_out"`
	Algorithm string   `json:"algorithms"`
	Local     []string `json:"local"`
	Remote    []string `json:"remote"`
	// RekeyAt is nil when the Child SA is never renewed for its age.
	RekeyAt *time.Time `json:"rekey_at,omitempty"`
}

// Traffic counts what has gone through the tunnel in this session.
type Traffic struct {
	InBytes    uint64     `json:"in_bytes"`
	InPackets  uint64     `json:"in_packets"`
	OutBytes   uint64     `json:"out_bytes"`
	OutPackets uint64     `json:"out_packets"`
	LastIn     *time.Time `json:"last_in,omitempty"`
}

// NotifyTimeout stands in Problem.Notify when there was no answer at all.
const NotifyTimeout = reason.NotifyTimeout

// Problem is something that went wrong, in codes for programs and words for people.
type Problem struct {
	Code reason.Code `json:"code"`
	// Notify is the name of the error in RFC 7296 §3.10.1, or TIMEOUT.
	Notify  string    `json:"notify,omitempty"`
	Message string    `json:"message"`
	Hint    string    `json:"hint,omitempty"`
	Time    time.Time `json:"time"`
	// Permanent says that trying again will not help until somebody changes something.
	Permanent bool `json:"permanent"`
	// Generation is the "up" command that it belongs to.
	Generation uint64 `json:"generation"`
}

// failure is an error of a connection with all that a Problem needs.
type failure struct {
	code   reason.Code
	notify message.NotifyType
	detail string
	hint   string // overrides the catalogue's
}

// Error is the sentence of the code with the detail.
func (f *failure) Error() string {
	if f.detail == "" {
		return f.code.Title()
	}
	return f.code.Title() + ": " + f.detail
}

// Unwrap gives the code to those who ask for it.
func (f *failure) Unwrap() error { return reason.New(f.code, "%s", f.detail) }

// problem puts a failure into words.
func (f *failure) problem(now time.Time, generation uint64) *Problem {
	p := &Problem{
		Code: f.code, Message: f.Error(), Hint: f.hint, Time: now, Generation: generation,
		Permanent: permanent(f.code),
	}
	if p.Hint == "" {
		p.Hint = f.code.Hint()
	}
	p.Notify = f.code.NotifyName()
	if f.notify != 0 {
		p.Notify = f.notify.String()
	}
	return p
}

// permanent says whether a failure comes again until somebody changes credentials or
// configuration on either side.
func permanent(c reason.Code) bool {
	switch c {
	case reason.AuthFailed, reason.AuthFailedPSK, reason.AuthFailedCertificate, reason.AuthMethodRefused,
		reason.CertMissing, reason.CertExpired, reason.CertUntrusted, reason.CertRevoked, reason.CertInvalid,
		reason.IDMismatch, reason.UserUnknown, reason.NoProposalChosen, reason.TSUnacceptable,
		reason.NoChildSA, reason.ConfigRequired, reason.NoAddressAssigned, reason.UnsupportedVersion, reason.ConfigInvalid,
		reason.AdminDisconnect, reason.PermissionDenied:
		return true
	}
	return false
}

// fillSession writes what the IKE engine knows of a session into a status.
func (s *Status) fillSession(info ike.SessionInfo) {
	s.SPIi, s.SPIr = fmt.Sprintf("%016x", uint64(info.SPIi)), fmt.Sprintf("%016x", uint64(info.SPIr))
	s.LocalID, s.RemoteID = info.Local.String(), info.Peer.String()
	s.Local, s.Remote = endpoint(info.Path.Pair.Local), endpoint(info.Path.Pair.Remote)
	s.Algorithm = info.Algorithms.String()
	s.NAT = &NAT{Local: info.NATLocal, Remote: info.NATPeer}
	s.Extensions = info.Extensions
	s.PathMTU = info.Path.MTU
	s.Encapsulation = "esp"
	if info.Path.UDP {
		s.Encapsulation = "udp"
	}
	if at := info.Established; !at.IsZero() {
		s.Since = &at
	}
	for _, c := range info.Children {
		if c.Active {
			s.Children = append(s.Children, childStatus(c))
		}
	}
}

func endpoint(ap netip.AddrPort) *Endpoint { return &Endpoint{ap.Addr(), ap.Port()} }

func childStatus(c ike.ChildInfo) Child {
	out := Child{
		SPIIn: fmt.Sprintf("%08x", c.SPIIn), SPIOut: fmt.Sprintf("%08x", c.SPIOut),
		Algorithm: c.Algorithms.String(), Local: esp.SelectorTexts(c.Local), Remote: esp.SelectorTexts(c.Remote),
	}
	if !c.RekeyAt.IsZero() {
		at := c.RekeyAt
		out.RekeyAt = &at
	}
	return out
}

func trafficOf(st esp.Stats) *Traffic {
	t := &Traffic{InBytes: st.InBytes, InPackets: st.InPackets, OutBytes: st.OutBytes, OutPackets: st.OutPackets}
	if !st.LastIn.IsZero() {
		at := st.LastIn
		t.LastIn = &at
	}
	return t
}
