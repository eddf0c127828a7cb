// Package config reads the TOML files of the two daemons, strictly: a key that
// nothing reads, a value of the wrong type or a broken line is an error that
// names the file, the line and what was probably meant. All of them are reported
// at once, and checks of the meaning ("this pool is too small") add theirs to the
// same list with Problems.
//
// Keys match exactly: struct fields are named by their `toml` tag, or by their
// name in lower case. Values already in the target stay where the file is silent,
// so defaults are set before decoding.
//
// Files may come from other people (a profile in a mail), so size, nesting and
// the number of reported problems are bounded. Secrets may point at files; for text that
// is not to read any, fuzzing for instance, there is WithoutFiles.
package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// MaxSize is the largest file that is read, in octets. A profile with inline
// certificates has a hundredth of that.
const MaxSize = 1 << 20

// Option changes how a file is decoded.
type Option func(*decoder)

// WithoutFiles refuses "file:" in secrets. The daemons do not use it: profiles may name
// their keys as files, and importing one takes these in.
func WithoutFiles() Option { return func(d *decoder) { d.noFiles = true } }

// Document is a file that has been read: it knows where every key stands.
type Document struct {
	name     string
	where    positions
	problems *Problems
	warnings []string
}

// Decode decodes data into the struct that into points to. The name appears in
// errors. The error is a *Problems.
func Decode(name string, data []byte, into any) error {
	_, err := Parse(name, data, into)
	return err
}

// DecodeFile decodes the file at path into the struct that into points to.
func DecodeFile(path string, into any) error {
	_, err := Load(path, into)
	return err
}

// Load is DecodeFile for callers that go on to check the meaning. When the error
// is about keys and values, and not about the file or its syntax, the document is
// returned with it, and its Problems already hold what is wrong.
func Load(path string, into any, options ...Option) (*Document, error) {
	data, err := ReadFile(path, MaxSize)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return Parse(path, data, into, options...)
}

// Parse is Load for content that is already in memory. Relative names of secret
// files are taken from the directory of name.
func Parse(name string, data []byte, into any, options ...Option) (*Document, error) {
	target := reflect.ValueOf(into)
	if target.Kind() != reflect.Pointer || target.IsNil() || target.Elem().Kind() != reflect.Struct {
		return nil, fmt.Errorf("decode %s: target is a %T, not a pointer to a struct", name, into)
	}
	doc := &Document{name: name}
	doc.problems = &Problems{document: doc}
	tree, err := doc.parse(data)
	if err != nil {
		return nil, err
	}
	d := &decoder{doc: doc, dir: filepath.Dir(name)}
	for _, o := range options {
		o(d)
	}
	d.root = target.Elem().Type()
	d.table("", tree, target.Elem())
	return doc, doc.problems.Err()
}

// Problems returns the list to add semantic errors to. It already holds what
// decoding found.
func (doc *Document) Problems() *Problems { return doc.problems }

// Warnings are remarks for the log that do not stop the daemon, such as a secret
// file that others can read.
func (doc *Document) Warnings() []string { return doc.warnings }

// Defined says whether the file sets a key, such as "network.pool" or
// "user[0].name".
func (doc *Document) Defined(key string) bool {
	_, ok := doc.where[key]
	return ok
}

// Line is the line of a key, or zero when the file does not set it.
func (doc *Document) Line(key string) int { return doc.where[key].line }

// parse checks the text and turns it into tables and values. What comes back as
// an error is a *Problems with one entry.
func (doc *Document) parse(data []byte) (tree map[string]any, err error) {
	if len(data) > MaxSize {
		return nil, doc.problems.only(position{}, fmt.Sprintf("larger than %d octets", MaxSize))
	}
	if at, message := badText(data); message != "" {
		return nil, doc.problems.only(at, message)
	}
	doc.where, err = scan(data)
	if err != nil {
		var beyond *limitError
		if errors.As(err, &beyond) {
			return nil, doc.problems.only(beyond.at, beyond.message)
		}
		return nil, err
	}
	// The parser is a dependency and this text may come from a stranger.
	defer func() {
		if r := recover(); r != nil {
			tree, err = nil, doc.problems.only(position{}, "this is not valid TOML")
		}
	}()
	if _, err := toml.Decode(string(data), &tree); err != nil {
		return nil, doc.problems.only(syntaxError(data, doc.where, err))
	}
	return tree, nil
}

// badText finds what no TOML file may hold: broken UTF-8 and control characters.
func badText(data []byte) (position, string) {
	at := position{line: 1, column: 1}
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return at, "not valid UTF-8: save the file as UTF-8 text"
		case r == 0:
			return at, "holds a NUL character: save the file as UTF-8 text"
		case r == '\r' && (i+1 == len(data) || data[i+1] != '\n'):
			return at, "holds a carriage return without a line feed"
		case r < 0x20 && r != '\t' && r != '\n' && r != '\r', r == 0x7f:
			return at, fmt.Sprintf("holds the control character 0x%02x", r)
		}
		at.column++
		if r == '\n' {
			at = position{line: at.line + 1, column: 1}
		}
		i += size
	}
	return position{}, ""
}
