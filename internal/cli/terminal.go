package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNoTerminal is returned when a question cannot be asked.
var ErrNoTerminal = &Error{Code: ExitUsage, Message: "there is no terminal to ask on",
	Hint: "Give the answer as an option; the command's --help names it."}

// maxAnswer bounds what is read as the answer to a question.
const maxAnswer = 4 << 10

// Terminal asks questions. It uses the controlling terminal, not standard input
// and output, which may be pipes.
type Terminal struct {
	file *os.File
	in   *bufio.Reader
}

// OpenTerminal opens the terminal of the process.
func OpenTerminal() (*Terminal, error) {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, ErrNoTerminal
	}
	return newTerminal(f), nil
}

func newTerminal(f *os.File) *Terminal {
	return &Terminal{file: f, in: bufio.NewReader(io.LimitReader(f, 1<<20))}
}

// Close closes the terminal.
func (t *Terminal) Close() error { return t.file.Close() }

// Ask asks a question and returns the answer, or the default if it is empty.
func (t *Terminal) Ask(question, byDefault string) (string, error) {
	if byDefault != "" {
		question += " [" + byDefault + "]"
	}
	fmt.Fprintf(t.file, "%s: ", question)
	answer, err := t.line()
	if err != nil {
		return "", err
	}
	if answer == "" {
		answer = byDefault
	}
	return answer, nil
}

// Confirm asks a question that can be answered with yes or no; an empty answer is
// the default.
func (t *Terminal) Confirm(question string, byDefault bool) (bool, error) {
	choices := "y/N"
	if byDefault {
		choices = "Y/n"
	}
	for {
		fmt.Fprintf(t.file, "%s [%s] ", question, choices)
		answer, err := t.line()
		if err != nil {
			return false, err
		}
		switch strings.ToLower(answer) {
		case "":
			return byDefault, nil
		case "y", "yes":
			return true, nil
		case "n", "no":
			return false, nil
		}
		fmt.Fprintln(t.file, "Please answer yes or no.")
	}
}

// Password asks for a secret without showing what is typed. The caller zeroes it.
func (t *Terminal) Password(question string) ([]byte, error) {
	fd := int(t.file.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, ErrNoTerminal
	}
	silent := *old
	silent.Lflag &^= unix.ECHO
	silent.Lflag |= unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &silent); err != nil {
		return nil, fmt.Errorf("hide what is typed: %w", err)
	}
	defer unix.IoctlSetTermios(fd, unix.TCSETS, old)
	fmt.Fprintf(t.file, "%s: ", question)
	answer, err := t.octets()
	fmt.Fprintln(t.file)
	return answer, err
}

func (t *Terminal) line() (string, error) {
	b, err := t.octets()
	return strings.TrimSpace(string(b)), err
}

// octets reads up to the end of the line.
func (t *Terminal) octets() ([]byte, error) {
	line, err := t.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) || len(line) > maxAnswer {
		return nil, Usagef("the answer is too long")
	}
	if err != nil && (len(line) == 0 || !errors.Is(err, io.EOF)) {
		return nil, Exitf(ExitInterrupted, "no answer")
	}
	answer := bytes.Clone(bytes.TrimRight(line, "\r\n"))
	clear(line) // the reader's buffer would keep a password
	return answer, nil
}

// IsTerminal says whether a file is a terminal.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
