package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxProblems is how many problems are kept; the rest is counted.
const maxProblems = 100

// Problem is one thing that is wrong in a file. Line and Column are zero when
// unknown, Key is empty when the problem is not about a key.
type Problem struct {
	File         string
	Line, Column int
	Key          string
	Message      string
}

// Error formats the problem as compilers do, so that editors can jump to it.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
		if p.Column > 0 {
			fmt.Fprintf(&b, ":%d", p.Column)
		}
	}
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// Problems collects everything that is wrong with a file, in the order of its
// lines. The zero value collects without knowing lines.
type Problems struct {
	document *Document
	list     []Problem
	failed   map[string]bool // keys whose value could not be decoded
	dropped  int
}

// Add notes a problem with the value of a key, such as "network.pool[0]". The
// line comes from the file; for a key that the file does not set, from the table
// it would stand in. Keys that could not be decoded are left out: their value is
// missing because of an error that is already on the list.
func (p *Problems) Add(key, format string, args ...any) {
	for k := key; k != ""; k = parentKey(k) {
		if p.failed[k] {
			return
		}
	}
	p.add(Problem{Line: p.lineOf(key), Key: key, Message: fmt.Sprintf(format, args...)})
}

// Err returns the problems as an error, or nil if there are none.
func (p *Problems) Err() error {
	if p == nil || len(p.list) == 0 {
		return nil
	}
	slices.SortStableFunc(p.list, func(a, b Problem) int { return a.Line - b.Line })
	return p
}

// Error lists the problems, one per line.
func (p *Problems) Error() string {
	var lines []string
	for _, problem := range p.list {
		lines = append(lines, problem.Error())
	}
	if p.dropped > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", p.dropped))
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the problems one by one.
func (p *Problems) Unwrap() []error {
	var list []error
	for _, problem := range p.list {
		list = append(list, problem)
	}
	return list
}

// List returns the problems, in the order of the file after Err was called.
func (p *Problems) List() []Problem { return slices.Clone(p.list) }

// AsProblems returns the single problems in err, if it came from this package.
func AsProblems(err error) ([]Problem, bool) {
	var p *Problems
	if !errors.As(err, &p) {
		return nil, false
	}
	return p.List(), true
}

// fail notes that the value of a key could not be decoded.
func (p *Problems) fail(key, format string, args ...any) {
	p.Add(key, format, args...)
	p.markFailed(key)
}

func (p *Problems) markFailed(key string) {
	if p.failed == nil {
		p.failed = map[string]bool{}
	}
	p.failed[key] = true
}

// only returns the list with one problem that makes all others moot.
func (p *Problems) only(at position, message string) *Problems {
	p.list = nil
	p.add(Problem{Line: at.line, Column: at.column, Message: message})
	return p
}

func (p *Problems) add(problem Problem) {
	if len(p.list) >= maxProblems {
		p.dropped++
		return
	}
	if p.document != nil {
		problem.File = p.document.name
	}
	if problem.File == "" {
		problem.File = "configuration"
	}
	p.list = append(p.list, problem)
}

// lineOf is the line of a key or of the nearest table around it.
func (p *Problems) lineOf(key string) int {
	if p.document == nil {
		return 0
	}
	for ; key != ""; key = parentKey(key) {
		if at, ok := p.document.where[key]; ok {
			return at.line
		}
	}
	return 0
}

// parentKey cuts the last segment or index off a path.
func parentKey(key string) string {
	quoted := false
	cut := 0
	for i := 0; i < len(key); i++ {
		switch c := key[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case (c == '.' || c == '[') && !quoted:
			cut = i
		}
	}
	return key[:cut]
}
