package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// pty opens a pseudo terminal: what a person types goes into the first file, the
// program has the second one.
func pty(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs pseudo terminals: %v", err)
	}
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Skipf("unlock the pseudo terminal: %v", err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("open the pseudo terminal: %v", err)
	}
	t.Cleanup(func() { person.Close(); program.Close() })
	return person, program
}

func TestQuestions(t *testing.T) {
	person, program := pty(t)
	if !IsTerminal(program) {
		t.Error("a terminal is not recognised")
	}
	terminal := newTerminal(program)
	person.WriteString("gw.example.org\n\nmaybe\nYES\n\nn\n")
	if got, err := terminal.Ask("Name", "x"); err != nil || got != "gw.example.org" {
		t.Errorf("Ask: %q, %v", got, err)
	}
	if got, err := terminal.Ask("Name", "x"); err != nil || got != "x" {
		t.Errorf("Ask with an empty answer: %q, %v", got, err)
	}
	for _, want := range []bool{true, true, false} {
		if got, err := terminal.Confirm("Sure?", true); err != nil || got != want {
			t.Errorf("Confirm: %v, %v; want %v", got, err, want)
		}
	}
}

func TestPasswordIsNotShown(t *testing.T) {
	person, program := pty(t)
	terminal := newTerminal(program)
	result := make(chan string)
	go func() {
		secret, err := terminal.Password("Password")
		if err != nil {
			t.Error(err)
		}
		result <- string(secret)
	}()
	// The question appears only after the echo is off.
	screen, buffer := "", make([]byte, 256)
	for !strings.Contains(screen, "Password: ") {
		n, err := person.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		screen += string(buffer[:n])
	}
	person.WriteString("hunter2\n")
	if got := <-result; got != "hunter2" {
		t.Errorf("got %q", got)
	}
	fmt.Fprint(program, "the end")
	for !strings.Contains(screen, "the end") {
		n, err := person.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		screen += string(buffer[:n])
	}
	if strings.Contains(screen, "hunter") {
		t.Errorf("the screen shows the password: %q", screen)
	}
	// Afterwards the terminal echoes again.
	state, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	if err != nil || state.Lflag&unix.ECHO == 0 {
		t.Errorf("the terminal stays silent: %v", err)
	}
}

func TestAnswersFromPipesEnd(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if IsTerminal(r) {
		t.Error("a pipe is taken for a terminal")
	}
	if _, err := newTerminal(r).Password("x"); !errors.Is(err, ErrNoTerminal) {
		t.Errorf("password from a pipe: %v", err)
	}
	fmt.Fprint(w, strings.Repeat("x", 5000))
	w.Close()
	if _, err := newTerminal(r).octets(); ExitCode(err) != ExitUsage {
		t.Errorf("a long answer: %v", err)
	}
	io.Copy(io.Discard, r)
	if _, err := newTerminal(r).octets(); ExitCode(err) != ExitInterrupted {
		t.Errorf("no answer: %v", err)
	}
}
