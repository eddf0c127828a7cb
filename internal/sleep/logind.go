package sleep

import (
	"context"
	"log/slog"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	loginName      = "org.freedesktop.login1"
	loginPath      = dbus.ObjectPath("/org/freedesktop/login1")
	loginInterface = "org.freedesktop.login1.Manager"
	loginMember    = "PrepareForSleep"
	// reconnect is how long to wait before looking for the bus again. Machines without
	// one have the other witnesses.
	reconnect = time.Minute
)

// logind listens to the system bus, and looks for it again when it goes away.
func logind(ctx context.Context, log *slog.Logger) <-chan Signal {
	return listenTo(ctx, log, func(ctx context.Context) (*dbus.Conn, error) {
		return dbus.ConnectSystemBus(dbus.WithContext(ctx))
	})
}

func listenTo(ctx context.Context, log *slog.Logger, connect func(context.Context) (*dbus.Conn, error)) <-chan Signal {
	out := make(chan Signal, 8)
	go func() {
		defer close(out)
		for ctx.Err() == nil {
			if err := listen(ctx, connect, out); err != nil && ctx.Err() == nil {
				log.Debug("no word of suspend and resume from logind", "error", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(reconnect):
			}
		}
	}()
	return out
}

// listen passes signals on until the connection or ctx ends.
func listen(ctx context.Context, connect func(context.Context) (*dbus.Conn, error), out chan<- Signal) error {
	conn, err := connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	// By its sender: on the system bus everybody may say anything.
	err = conn.AddMatchSignalContext(ctx, dbus.WithMatchSender(loginName), dbus.WithMatchObjectPath(loginPath), dbus.WithMatchInterface(loginInterface), dbus.WithMatchMember(loginMember))
	if err != nil {
		return err
	}
	signals := make(chan *dbus.Signal, 8)
	conn.Signal(signals)
	for {
		select {
		case <-ctx.Done():
			return nil
		case s, ok := <-signals:
			if !ok {
				return dbus.ErrClosed
			}
			if v, ok := readSignal(s); ok {
				select {
				case out <- v:
				default: // nobody listens; the clocks will tell
				}
			}
		}
	}
}

// readSignal understands PrepareForSleep(b start).
func readSignal(s *dbus.Signal) (Signal, bool) {
	if s.Path != loginPath || s.Name != loginInterface+"."+loginMember || len(s.Body) != 1 {
		return 0, false
	}
	start, ok := s.Body[0].(bool)
	if !ok {
		return 0, false
	}
	if start {
		return GoingToSleep, true
	}
	return WokenUp, true
}
