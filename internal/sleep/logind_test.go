package sleep

import (
	"context"
	"log/slog"
	"testing"

	"github.com/godbus/dbus/v5"

	"github.com/wayfarer-vpn/wayfarer/internal/bustest"
)

func dial(t *testing.T, address string) *dbus.Conn {
	t.Helper()
	c, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestLogind: the signals of the service that owns logind's name arrive, those of
// anybody else do not.
func TestLogind(t *testing.T) {
	address := bustest.Start(t, "logind's signals were")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	subscribed, listener := make(chan struct{}), make(chan *dbus.Conn, 1)
	signals := listenTo(ctx, slog.New(slog.DiscardHandler), func(ctx context.Context) (*dbus.Conn, error) {
		c, err := dbus.Connect(address, dbus.WithContext(ctx), dbus.WithOutgoingInterceptor(func(m *dbus.Message) {
			if m.Headers[dbus.FieldMember].Value() == "AddMatch" {
				close(subscribed)
			}
		}))
		listener <- c
		return c, err
	})
	<-subscribed
	// The bus answers one connection in order: the match rule is in force after this.
	if err := (<-listener).BusObject().Call("org.freedesktop.DBus.GetId", 0).Err; err != nil {
		t.Fatal(err)
	}
	real, liar := dial(t, address), dial(t, address)
	if reply, err := real.RequestName(loginName, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("own the name: %v %v", reply, err)
	}
	say := func(c *dbus.Conn, start bool) {
		if err := c.Emit(loginPath, loginInterface+"."+loginMember, start); err != nil {
			t.Fatal(err)
		}
	}
	say(liar, true)
	// What the liar says is through before the others speak.
	if err := liar.BusObject().Call("org.freedesktop.DBus.GetId", 0).Err; err != nil {
		t.Fatal(err)
	}
	say(real, true)
	say(real, false)
	for _, want := range []Signal{GoingToSleep, WokenUp} {
		if got := <-signals; got != want {
			t.Errorf("signal %v, want %v", got, want)
		}
	}
	select {
	case s := <-signals:
		t.Errorf("another signal: %v", s)
	default:
	}
}

func TestReadSignal(t *testing.T) {
	name := loginInterface + "." + loginMember
	for _, s := range []*dbus.Signal{
		{Path: loginPath, Name: name},
		{Path: loginPath, Name: name, Body: []any{"yes"}},
		{Path: loginPath, Name: loginInterface + ".SessionNew", Body: []any{true}},
		{Path: "/elsewhere", Name: name, Body: []any{true}},
	} {
		if v, ok := readSignal(s); ok {
			t.Errorf("%+v is understood as %v", s, v)
		}
	}
}
