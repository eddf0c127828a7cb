package sleep

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
)

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>unix:dir=%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>`

// privateBus starts a D-Bus daemon of the test's own and returns its address.
func privateBus(t *testing.T) string {
	daemon, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("SKIPPED: dbus-daemon is not installed (apt-get install dbus); logind's signals were not tested")
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, busConfig, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(daemon, "--config-file="+config, "--nofork", "--print-address")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(address)
}

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
	address := privateBus(t)
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
