package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"unicode"

	urfave "github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

// JSONFlag is the option --json of commands that print something.
func JSONFlag() urfave.Flag {
	return &urfave.BoolFlag{Name: "json", Usage: "print JSON for programs"}
}

// WantsJSON says whether --json was given.
func WantsJSON(c *urfave.Context) bool { return c.Bool("json") }

// PrintJSON prints a value as indented JSON.
func PrintJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// Print prints a value as JSON if --json was given, and calls text otherwise.
func Print(c *urfave.Context, v any, text func(w io.Writer) error) error {
	if WantsJSON(c) {
		return PrintJSON(c.App.Writer, v)
	}
	return text(c.App.Writer)
}

// Table prints rows under a header, in columns.
type Table struct {
	header []string
	rows   [][]string
}

// NewTable makes a table with the names of its columns.
func NewTable(header ...string) *Table { return &Table{header: header} }

// Row adds a row. Empty cells are shown as a dash, so that columns can be cut.
func (t *Table) Row(cells ...any) {
	row := make([]string, len(t.header))
	for i := range row {
		row[i] = "-"
		if i < len(cells) && cells[i] != nil {
			if s := Clean(fmt.Sprint(cells[i])); s != "" {
				row[i] = s
			}
		}
	}
	t.rows = append(t.rows, row)
}

// Len is the number of rows.
func (t *Table) Len() int { return len(t.rows) }

// Print prints the table.
func (t *Table) Print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, strings.ToUpper(strings.Join(t.header, "\t")))
	for _, row := range t.rows {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	return tw.Flush()
}

// Fields prints names with values, one per line, for a single thing.
type Fields struct {
	rows [][2]string
}

// Add adds a line. Without a value it is left out.
func (f *Fields) Add(name string, value any) {
	if s := Clean(fmt.Sprint(value)); s != "" && value != nil {
		f.rows = append(f.rows, [2]string{name, s})
	}
}

// Print prints the lines with the values in one column.
func (f *Fields) Print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, row := range f.rows {
		fmt.Fprintf(tw, "%s:\t%s\n", row[0], row[1])
	}
	return tw.Flush()
}

// IsTerminal says whether a file is a terminal.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Clean replaces what could take control of a terminal, or break a table, by
// question marks: names and versions come from the other side.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, s)
}

// cleanLines is Clean for texts of several lines.
func cleanLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = Clean(lines[i])
	}
	return strings.Join(lines, "\n")
}
