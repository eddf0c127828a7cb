package server

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/datapath"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/internal/service"
	"github.com/wayfarer-vpn/wayfarer/internal/shard"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// Status is the state of the gateway as the control API tells it.
type Status struct {
	State   string    `json:"state"` // running
	Version string    `json:"version"`
	Name    string    `json:"name"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Config  string    `json:"config"`
	Device  string    `json:"device"`
	// DataPath says who seals and opens packets, and why.
	DataPath datapath.Choice `json:"datapath"`
	Sessions struct {
		Established int `json:"established"`
		HalfOpen    int `json:"half_open"`
	} `json:"sessions"`
	Pools       []PoolStatus       `json:"pools"`
	Certificate *CertificateStatus `json:"certificate,omitempty"`
	LastError   *LastError         `json:"last_error"`
	StoreError  string             `json:"store_error,omitempty"`
	Warnings    []string           `json:"warnings"`
	Dropped     Dropped            `json:"dropped"`
}

// CertificateStatus is about the gateway's own certificate.
type CertificateStatus struct {
	Subject  string    `json:"subject"`
	NotAfter time.Time `json:"not_after"`
}

// Dropped counts what was not looked at, or could not be used.
type Dropped struct {
	Malformed uint64             `json:"malformed"` // no IKE message
	Inits     uint64             `json:"inits"`     // requests for new IKE SAs, by a full inbox
	Messages  uint64             `json:"messages"`  // messages of sessions, by a full inbox
	Unsent    uint64             `json:"unsent"`    // IKE messages that could not be sent
	Transport transport.Counters `json:"socket_counters"`
}

// Session is a session as the control API tells it.
type Session struct {
	ID       uint64 `json:"id"`
	Identity string `json:"identity"`
	State    string `json:"state"` // connecting, established, closing
	// AwaySince says since when an established client has not been answering.
	AwaySince    *time.Time   `json:"away_since,omitempty"`
	Role         string       `json:"role"`
	SPIi         string       `json:"spi_i"` // 16 hex digits
	SPIr         string       `json:"spi_r"`
	Local        string       `json:"local"` // address and port
	Remote       string       `json:"remote"`
	Addresses    []netip.Addr `json:"inner_addresses"`
	Auth         string       `json:"auth"`
	Algorithms   string       `json:"algorithms"`
	NAT          NAT          `json:"nat"`
	Encapsulated bool         `json:"udp_encapsulation"`
	// PathMTU is the largest packet that the path is known to carry to the client.
	PathMTU      int       `json:"path_mtu,omitempty"`
	Fragments    bool      `json:"fragmentation"`
	Extensions   []string  `json:"extensions"`
	Started      time.Time `json:"started"`
	Established  time.Time `json:"established,omitzero"`
	RekeyAt      time.Time `json:"rekey_at,omitzero"`
	LastActivity time.Time `json:"last_activity,omitzero"`
	Traffic      Traffic   `json:"traffic"`
	Children     []Child   `json:"children"`
	// MoveCount says how often the client has moved, Moves tells of the last ones, oldest
	// first.
	MoveCount int    `json:"move_count"`
	Moves     []Move `json:"moves"`
}

// NAT says which side is behind a NAT.
type NAT struct {
	Local bool `json:"local"`
	Peer  bool `json:"peer"`
}

// Traffic counts what a session or a Child SA has carried, and what was dropped.
type Traffic struct {
	InBytes    uint64 `json:"in_bytes"`
	InPackets  uint64 `json:"in_packets"`
	OutBytes   uint64 `json:"out_bytes"`
	OutPackets uint64 `json:"out_packets"`
	Replayed   uint64 `json:"replayed"`
	Forged     uint64 `json:"forged"`
	Mismatched uint64 `json:"mismatched"` // outside of the traffic selectors
}

// Child is a Child SA.
type Child struct {
	SPIIn       string    `json:"spi_in"` // 8 hex digits
	SPIOut      string    `json:"spi_out"`
	Algorithms  string    `json:"algorithms"`
	Local       []string  `json:"local"` // traffic selectors
	Remote      []string  `json:"remote"`
	Established time.Time `json:"established"`
	RekeyAt     time.Time `json:"rekey_at,omitzero"`
	Active      bool      `json:"active"`
}

// States of a session in the API.
const (
	stateConnecting  = "connecting"
	stateEstablished = "established"
	stateClosing     = "closing"
)

// newSession describes a session; stats may be nil.
func newSession(i ike.SessionInfo, stats *esp.Stats) *Session {
	out := &Session{
		ID: uint64(i.ID), Identity: i.Peer.String(), State: stateName(i.State), Role: "responder",
		SPIi: i.SPIi.String(), SPIr: i.SPIr.String(),
		Local: i.Path.Pair.Local.String(), Remote: i.Path.Pair.Remote.String(),
		Addresses: nonNil(i.Config.Addresses), NAT: NAT{i.NATLocal, i.NATPeer}, Encapsulated: i.Path.UDP, PathMTU: i.Path.MTU,
		Fragments: i.Fragmentation, Extensions: nonNil(i.Extensions),
		Started: i.Started, Established: i.Established, RekeyAt: i.IKERekeyAt, LastActivity: i.LastIKEInbound,
		Children: []Child{}, Moves: []Move{},
	}
	if t := i.AwaySince; !t.IsZero() {
		out.AwaySince = &t
	}
	if i.Role == ike.Initiator {
		out.Role = "initiator"
	}
	if i.Peer.IsZero() {
		out.Identity = ""
	}
	if i.AuthMethod != 0 {
		out.Auth = i.AuthMethod.String()
	}
	if i.Algorithms.Encr.ID != 0 {
		out.Algorithms = ikeAlgorithms(i.Algorithms)
	}
	for _, c := range i.Children {
		out.Children = append(out.Children, newChild(c))
	}
	if stats != nil {
		out.Traffic = Traffic{stats.InBytes, stats.InPackets, stats.OutBytes, stats.OutPackets, stats.Replayed, stats.AuthFailed, stats.SelectorMismatch}
		if stats.LastIn.After(out.LastActivity) {
			out.LastActivity = stats.LastIn
		}
	}
	return out
}

func newChild(c ike.ChildInfo) Child {
	return Child{
		SPIIn: fmt.Sprintf("%08x", c.SPIIn), SPIOut: fmt.Sprintf("%08x", c.SPIOut), Algorithms: c.Algorithms.String(),
		Local: esp.SelectorTexts(c.Local), Remote: esp.SelectorTexts(c.Remote), Established: c.Established, RekeyAt: c.RekeyAt, Active: c.Active,
	}
}

func stateName(s ike.State) string {
	switch s {
	case ike.Connecting:
		return stateConnecting
	case ike.Up:
		return stateEstablished
	default:
		return stateClosing
	}
}

func ikeAlgorithms(a suite.IKEAlgorithms) string { return a.String() }

func firstChildAlgorithms(i ike.SessionInfo) string {
	if len(i.Children) == 0 {
		return "none"
	}
	return i.Children[0].Algorithms.String()
}

// nonNil makes an empty list of none, so that JSON has [] and not null.
func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// Status returns the state of the gateway.
func (s *Server) Status(ctx context.Context) (*Status, error) {
	settings := s.settings.Load()
	out := &Status{
		State: "running", Version: s.version, Name: settings.Config.Name, PID: os.Getpid(), Started: s.started,
		Config: settings.Path, Device: settings.Config.Tunnel.Device, DataPath: s.dataPath,
		Pools: s.leases.status(), LastError: s.lastError.Load(), Warnings: nonNil(settings.Warnings),
	}
	var err error
	out.Sessions.HalfOpen, out.Sessions.Established, err = s.group.Counts(ctx)
	if err != nil {
		return nil, err
	}
	if own := settings.Policy.Local.Certificate(); own != nil {
		out.Certificate = &CertificateStatus{own.Subject.String(), own.NotAfter}
	}
	if s.behind != nil && s.behind.Err() != nil {
		out.StoreError = s.behind.Err().Error()
	}
	stats, malformed := s.group.Stats()
	out.Dropped = Dropped{Malformed: malformed, Inits: stats.DroppedInits, Messages: stats.DroppedKnown, Unsent: stats.SendErrors}
	if s.transport != nil {
		out.Dropped.Transport = s.transport.Counters()
	}
	return out, nil
}

// Sessions returns all sessions that have proved who they are, oldest first; with all,
// half-open ones too.
func (s *Server) Sessions(ctx context.Context, all bool) ([]*Session, error) {
	infos, err := s.group.Sessions(ctx)
	if err != nil {
		return nil, err
	}
	out := []*Session{}
	for _, i := range infos {
		if i.State == ike.Gone || i.State == ike.Connecting && !all {
			continue
		}
		var stats *esp.Stats
		if st, err := s.path.QueryHost(esp.HostID(i.ID)); err == nil {
			stats = &st
		}
		x := newSession(i, stats)
		count, last := s.table.movesOf(i.ID)
		x.MoveCount, x.Moves = count, nonNil(last)
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b *Session) int {
		return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// Disconnect ends a session in an orderly way.
func (s *Server) Disconnect(ctx context.Context, id uint64) error {
	session := ike.SessionID(id)
	var found bool
	err := s.group.Of(session).Call(ctx, func(now time.Time, e shard.Engine) {
		var i ike.SessionInfo
		if i, found = e.Session(session); found && i.State != ike.Gone {
			e.Close(now, session, reason.AdminDisconnect)
		}
	})
	if err != nil {
		return err
	}
	if !found {
		return reason.New(reason.NotFound, "session %d; vpn-server sessions lists them", id)
	}
	return nil
}

// SetLogLevel changes the log level until the next reload that changes it.
func (s *Server) SetLogLevel(text string) error {
	level, err := service.ParseLevel(text)
	if err != nil {
		return reason.Wrap(reason.InvalidRequest, err)
	}
	if s.logLevel == nil {
		return reason.New(reason.InvalidRequest, "the log level cannot be changed")
	}
	s.logLevel.Set(level)
	s.log.Info("log level changed", "level", text)
	return nil
}

// Watch returns a channel of events, and the function that ends it.
func (s *Server) Watch() (<-chan Event, func()) { return s.events.watch() }
