// Command notify starts a service as systemd would start it, for the package test in a
// root without systemd: it reads ExecStart= and the directories from the unit, waits
// for READY=1 (sd_notify(3)), prints the process number and leaves the service running.
//
//	notify UNIT LOG
//
// It checks what a broken unit or daemon would get wrong. Of the sandbox it sets up the
// capabilities, by setpriv(1): a service that needs more than its unit grants fails.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// startTimeout is how long a service may take to become ready.
const startTimeout = 20 * time.Second

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: notify UNIT LOG")
		os.Exit(2)
	}
	pid, err := start(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "notify:", err)
		os.Exit(1)
	}
	fmt.Println(pid)
}

func start(unitPath, logPath string) (int, error) {
	unit, err := readUnit(unitPath)
	if err != nil {
		return 0, err
	}
	if unit["Type"] != "notify" {
		return 0, fmt.Errorf("%s: Type is %q, not notify", unitPath, unit["Type"])
	}
	if condition := unit["ConditionPathExists"]; condition != "" {
		if _, err := os.Stat(condition); err != nil {
			return 0, fmt.Errorf("the unit's condition does not hold: %w", err)
		}
	}
	if err := makeDirectories(unit); err != nil {
		return 0, err
	}
	socket, err := os.MkdirTemp("", "notify")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(socket)
	address := &net.UnixAddr{Name: filepath.Join(socket, "s"), Net: "unixgram"}
	conn, err := net.ListenUnixgram("unixgram", address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	log, err := os.Create(logPath)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	words := strings.Fields(unit["ExecStart"])
	if len(words) == 0 {
		return 0, fmt.Errorf("%s has no ExecStart", unitPath)
	}
	words = append(confinement(unit), words...)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(append(os.Environ(), "NOTIFY_SOCKET="+address.Name), strings.Fields(unit["Environment"])...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	if err := awaitReady(conn, gone); err != nil {
		cmd.Process.Kill()
		return 0, err
	}
	return cmd.Process.Pid, nil
}

// confinement is the command in front of the service that leaves it no more
// capabilities than CapabilityBoundingSet= does.
func confinement(unit map[string]string) []string {
	granted, limited := unit["CapabilityBoundingSet"]
	if !limited {
		return nil
	}
	set := "-all"
	for _, name := range strings.Fields(granted) {
		set += ",+" + strings.ToLower(strings.TrimPrefix(name, "CAP_"))
	}
	return []string{"setpriv", "--no-new-privs", "--inh-caps", "-all", "--bounding-set", set, "--"}
}

// awaitReady reads notifications until one of them says READY=1.
func awaitReady(conn *net.UnixConn, gone <-chan error) error {
	ready := make(chan error, 1)
	go func() {
		conn.SetReadDeadline(time.Now().Add(startTimeout))
		buffer := make([]byte, 4096)
		for {
			n, err := conn.Read(buffer)
			if err != nil {
				ready <- fmt.Errorf("no READY=1 within %v: %w", startTimeout, err)
				return
			}
			for _, line := range strings.Split(string(buffer[:n]), "\n") {
				if line == "READY=1" {
					ready <- nil
					return
				}
			}
		}
	}()
	select {
	case err := <-ready:
		return err
	case err := <-gone:
		if err == nil {
			err = errors.New("exit status 0")
		}
		return fmt.Errorf("the service ended before it was ready: %w", err)
	}
}

// readUnit reads a unit file; of settings that repeat the last one counts.
func readUnit(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	unit := map[string]string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), "="); ok && !strings.HasPrefix(key, "#") {
			unit[key] = value
		}
	}
	return unit, lines.Err()
}

// makeDirectories makes what systemd makes before it starts a service (systemd.exec(5)).
func makeDirectories(unit map[string]string) error {
	for setting, parent := range map[string]string{"StateDirectory": "/var/lib", "RuntimeDirectory": "/run"} {
		name := unit[setting]
		if name == "" {
			continue
		}
		mode := uint64(0o755)
		if m := unit[setting+"Mode"]; m != "" {
			var err error
			if mode, err = strconv.ParseUint(m, 8, 32); err != nil {
				return fmt.Errorf("%sMode: %w", setting, err)
			}
		}
		path := filepath.Join(parent, name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(path, os.FileMode(mode)); err != nil {
			return err
		}
	}
	return nil
}
