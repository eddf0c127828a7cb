package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/wayfarer-vpn/wayfarer/internal/cli"
	"github.com/wayfarer-vpn/wayfarer/internal/control"
	"github.com/wayfarer-vpn/wayfarer/server"
)

// socketPath is where the daemon listens: as the option says, else the configuration,
// else the default, which members of the control group can use without being able to
// read the configuration.
func socketPath(c *urfave.Context) string {
	if path := c.String(flagSocket); path != "" {
		return path
	}
	if admin, err := server.OpenAdmin(c.String(flagConfig)); err == nil {
		return admin.Config.Control.Socket
	}
	return server.DefaultSocket
}

func client(c *urfave.Context) *control.Client {
	return control.NewClient(socketPath(c), "vpn-server")
}

func statusCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "status",
		Usage: "show the state of the gateway",
		Description: cli.Describe("The exit code is 3 when the gateway does not run.",
			cli.Example{Command: "vpn-server status"},
			cli.Example{Command: "vpn-server status --json | jq .sessions.established", Does: "For scripts"}),
		Flags: []urfave.Flag{cli.JSONFlag()},
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c); err != nil {
				return err
			}
			var st server.Status
			if err := client(c).Get(c.Context, server.PathStatus, &st); err != nil {
				return err
			}
			return cli.Print(c, st, func(w io.Writer) error { return printStatus(w, &st, time.Now()) })
		},
	}
}

func printStatus(w io.Writer, st *server.Status, now time.Time) error {
	f := &cli.Fields{}
	f.Add("Gateway", st.Name)
	f.Add("State", fmt.Sprintf("%s since %s (%s), process %d, version %s", st.State, st.Started.Format(time.DateTime), age(st.Started, now), st.PID, st.Version))
	f.Add("Configuration", st.Config)
	if st.DataPath.Kind != "" {
		f.Add("Data path", fmt.Sprintf("%s: %s", st.DataPath.Kind, st.DataPath.Why))
	}
	f.Add("Sessions", fmt.Sprintf("%d established, %d half-open", st.Sessions.Established, st.Sessions.HalfOpen))
	for _, p := range st.Pools {
		f.Add("Pool", fmt.Sprintf("%s: %d of %d in use", p.Network, p.InUse, p.Size))
	}
	if c := st.Certificate; c != nil {
		f.Add("Certificate", fmt.Sprintf("%s, valid until %s", c.Subject, c.NotAfter.Format(time.DateOnly)))
	}
	if e := st.LastError; e != nil {
		text := fmt.Sprintf("%s ago: %s", age(e.Time, now), e.Title)
		if e.Detail != "" {
			text += " (" + e.Detail + ")"
		}
		if e.Peer != "" {
			text += ", " + e.Peer
		}
		f.Add("Last error", text+" from "+e.Remote.String())
		f.Add("Hint", e.Hint)
	}
	if st.StoreError != "" {
		f.Add("Lease store", st.StoreError)
	}
	if d := st.Dropped; d.Malformed+d.Inits+d.Messages > 0 {
		f.Add("Dropped", fmt.Sprintf("%d malformed datagrams, %d requests and %d messages under load", d.Malformed, d.Inits, d.Messages))
	}
	for _, text := range st.Warnings {
		f.Add("Warning", text)
	}
	return f.Print(w)
}

// age is how long ago something was.
func age(since, now time.Time) string { return cli.Span(now.Sub(since)) }

func sessionsCommand() *urfave.Command {
	return &urfave.Command{
		Name:      "sessions",
		Usage:     "list sessions, or show one",
		ArgsUsage: "[ID]",
		Description: cli.Describe("",
			cli.Example{Command: "vpn-server sessions", Does: "Who is connected"},
			cli.Example{Command: "vpn-server sessions 7", Does: "One session with its Child SAs"}),
		Flags: []urfave.Flag{cli.JSONFlag(), &urfave.BoolFlag{Name: "all", Usage: "also those that have not authenticated yet"}},
		Action: func(c *urfave.Context) error {
			args, err := cli.Args(c, "[ID]")
			if err != nil {
				return err
			}
			if len(args) == 1 {
				return showSession(c, args[0])
			}
			path := server.PathSessions
			if c.Bool("all") {
				path += "?all=true"
			}
			var list server.SessionList
			if err := client(c).Get(c.Context, path, &list); err != nil {
				return err
			}
			return cli.Print(c, list, func(w io.Writer) error { return printSessions(w, list.Sessions, time.Now()) })
		},
	}
}

func printSessions(w io.Writer, list []*server.Session, now time.Time) error {
	t := cli.NewTable("id", "identity", "state", "from", "was at", "addresses", "since", "in", "out")
	for _, s := range list {
		since := ""
		if !s.Established.IsZero() {
			since = age(s.Established, now)
		}
		t.Row(s.ID, s.Identity, state(s, now), s.Remote, before(s, now), addresses(s.Addresses), since, cli.Octets(s.Traffic.InBytes), cli.Octets(s.Traffic.OutBytes))
	}
	return t.Print(w)
}

// before says where a client was before it came to where it is, and until when.
func before(s *server.Session, now time.Time) string {
	if len(s.Moves) == 0 {
		return "-"
	}
	m := s.Moves[len(s.Moves)-1]
	return fmt.Sprintf("%s (%s ago)", m.From, age(m.Time, now))
}

// state is the state of a session; one whose client does not answer is away.
func state(s *server.Session, now time.Time) string {
	if s.AwaySince != nil {
		return "away " + age(*s.AwaySince, now)
	}
	return s.State
}

func addresses(list []netip.Addr) string {
	var parts []string
	for _, a := range list {
		parts = append(parts, a.String())
	}
	return strings.Join(parts, ",")
}

func showSession(c *urfave.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	var s server.Session
	if err := client(c).Get(c.Context, server.PathSessions+"/"+id, &s); err != nil {
		return err
	}
	return cli.Print(c, s, func(w io.Writer) error { return printSession(w, &s, time.Now()) })
}

func checkID(id string) error {
	if _, err := strconv.ParseUint(id, 10, 64); err != nil {
		return cli.Usagef("%q is not the number of a session", id).WithHint("vpn-server sessions lists them.")
	}
	return nil
}

func printSession(w io.Writer, s *server.Session, now time.Time) error {
	f := &cli.Fields{}
	f.Add("Session", fmt.Sprintf("%d, %s", s.ID, state(s, now)))
	f.Add("Identity", s.Identity)
	f.Add("Proved by", s.Auth)
	f.Add("Path", s.Local+" <- "+s.Remote+natText(s))
	for i := len(s.Moves) - 1; i >= 0; i-- {
		m := s.Moves[i]
		f.Add("Moved", fmt.Sprintf("%s ago from %s to %s, because of %s, in %.0f ms", age(m.Time, now), m.From, m.To, m.Cause, m.TookMS))
	}
	if older := s.MoveCount - len(s.Moves); older > 0 {
		f.Add("Moved before", fmt.Sprintf("%d times", older))
	}
	f.Add("Inner addresses", addresses(s.Addresses))
	f.Add("IKE SPIs", s.SPIi+" "+s.SPIr)
	f.Add("IKE algorithms", s.Algorithms)
	f.Add("Extensions", strings.Join(s.Extensions, ", "))
	if !s.Established.IsZero() {
		f.Add("Established", s.Established.Format(time.DateTime)+" ("+age(s.Established, now)+")")
	}
	if !s.LastActivity.IsZero() {
		f.Add("Last heard of", age(s.LastActivity, now)+" ago")
	}
	if !s.RekeyAt.IsZero() {
		f.Add("Next rekeying", s.RekeyAt.Format(time.DateTime))
	}
	t := s.Traffic
	f.Add("In", fmt.Sprintf("%s in %d packets", cli.Octets(t.InBytes), t.InPackets))
	f.Add("Out", fmt.Sprintf("%s in %d packets", cli.Octets(t.OutBytes), t.OutPackets))
	if t.Replayed+t.Forged+t.Mismatched > 0 {
		f.Add("Dropped", fmt.Sprintf("%d replayed, %d forged, %d outside of the traffic selectors", t.Replayed, t.Forged, t.Mismatched))
	}
	for _, c := range s.Children {
		f.Add("Child SA", fmt.Sprintf("in %s, out %s, %s", c.SPIIn, c.SPIOut, c.Algorithms))
		f.Add("Traffic", strings.Join(c.Local, ", ")+" <- "+strings.Join(c.Remote, ", "))
	}
	return f.Print(w)
}

func natText(s *server.Session) string {
	var parts []string
	if s.NAT.Peer {
		parts = append(parts, "the client is behind a NAT")
	}
	if s.NAT.Local {
		parts = append(parts, "the gateway is behind a NAT")
	}
	if s.Encapsulated {
		parts = append(parts, "ESP in UDP")
	} else {
		parts = append(parts, "native ESP")
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

func disconnectCommand() *urfave.Command {
	cmd := &urfave.Command{
		Name:      "disconnect",
		Usage:     "end sessions",
		ArgsUsage: "ID...",
		Description: cli.Describe("The client is told. It may connect again: to keep somebody out, end the user's access.",
			cli.Example{Command: "vpn-server disconnect 7"}),
		Flags: []urfave.Flag{cli.JSONFlag()},
		Action: func(c *urfave.Context) error {
			ids, err := cli.Args(c, "ID", "[ID...]")
			if err != nil {
				return err
			}
			for _, id := range ids {
				if err := checkID(id); err != nil {
					return err
				}
			}
			for _, id := range ids {
				if err := client(c).Post(c.Context, server.PathSessions+"/"+id+"/disconnect", nil, nil); err != nil {
					return err
				}
			}
			return cli.Print(c, map[string][]string{"disconnected": ids}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "Session %s is being ended.\n", strings.Join(ids, ", "))
				return err
			})
		},
	}
	return cli.Complete(cmd, func(c *urfave.Context) []string {
		var list server.SessionList
		ctx, cancel := context.WithTimeout(c.Context, time.Second)
		defer cancel()
		if client(c).Get(ctx, server.PathSessions, &list) != nil {
			return nil
		}
		var ids []string
		for _, s := range list.Sessions {
			ids = append(ids, strconv.FormatUint(s.ID, 10))
		}
		return ids
	})
}

func reloadCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "reload",
		Usage: "make the gateway read its configuration again",
		Description: cli.Describe("Sessions go on, except those of users who may not connect any more. A configuration with errors is not used.",
			cli.Example{Command: "vpn-server check && vpn-server reload", Does: "After a change"},
			cli.Example{Command: "vpn-server reload --json | jq -r .needs_restart[]", Does: "Which keys wait for a restart"}),
		Flags: []urfave.Flag{cli.JSONFlag()},
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c); err != nil {
				return err
			}
			var answer server.Reloaded
			if err := client(c).Post(c.Context, server.PathReload, nil, &answer); err != nil {
				return err
			}
			return cli.Print(c, answer, func(w io.Writer) error { return printReloaded(w, answer) })
		},
	}
}

func printReloaded(w io.Writer, answer server.Reloaded) error {
	fmt.Fprintln(w, "The new configuration is in force.")
	if len(answer.NeedsRestart) > 0 {
		fmt.Fprintf(w, "These keys take effect at the next start: %s\n", strings.Join(answer.NeedsRestart, ", "))
	}
	return nil
}

func reload(c *urfave.Context) error {
	return client(c).Post(c.Context, server.PathReload, nil, nil)
}

func eventsCommand() *urfave.Command {
	return &urfave.Command{
		Name:        "events",
		Usage:       "watch sessions come and go",
		Description: cli.Describe("", cli.Example{Command: "vpn-server events --json", Does: "One JSON object per line"}),
		Flags:       []urfave.Flag{cli.JSONFlag()},
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c); err != nil {
				return err
			}
			return client(c).Stream(c.Context, server.PathEvents, func(line json.RawMessage) error {
				if cli.WantsJSON(c) {
					_, err := fmt.Fprintf(c.App.Writer, "%s\n", line)
					return err
				}
				var e server.Event
				if err := json.Unmarshal(line, &e); err != nil {
					return err
				}
				_, err := fmt.Fprintln(c.App.Writer, cli.Clean(e.String()))
				return err
			})
		},
	}
}

func logLevelCommand() *urfave.Command {
	return &urfave.Command{
		Name:      "log-level",
		Usage:     "change how much the running gateway logs",
		ArgsUsage: "debug|info|warn|error",
		Description: cli.Describe("It holds until the next start or until log.level changes. The log itself goes to standard error; under systemd journalctl -u vpn-server shows it.",
			cli.Example{Command: "vpn-server log-level debug", Does: "While looking for something"}),
		Action: func(c *urfave.Context) error {
			args, err := cli.Args(c, "LEVEL")
			if err != nil {
				return err
			}
			return client(c).Post(c.Context, server.PathLogLevel, server.LogLevel{Level: args[0]}, nil)
		},
	}
}
