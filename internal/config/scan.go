package config

import (
	"fmt"
	"strconv"
	"strings"
)

// The TOML library tells what a key holds but not where it stands. This scanner
// finds that. It runs before the parser, over text that may be invalid, and stops
// silently at the first thing it does not understand: complaining about syntax is
// the parser's business. It does enforce limits, because the parser has none.

// Limits on what a file may hold. Without them a megabyte of text could cost
// gigabytes of memory, or a stack without end.
const (
	maxNesting = 32      // parts of a dotted key; arrays or tables within each other
	maxPath    = 512     // octets of a key with all that it stands in
	maxKeys    = 1 << 16 // keys and array elements of a file
)

// position is a place in a file, counted from 1; the zero value is unknown.
type position struct {
	line, column int
}

// positions holds where each key stands. Keys are dotted, with the index of array
// elements in brackets: `user[1].name`. Segments that are not bare keys are quoted.
type positions map[string]position

// limitError says that a file is beyond one of the limits.
type limitError struct {
	at      position
	message string
}

func (e *limitError) Error() string { return e.message }

// scanner walks over TOML text and notes where keys stand.
type scanner struct {
	data   []byte
	pos    int
	line   int
	bol    int // where the current line begins
	found  positions
	arrays map[string]int // number of elements of each array of tables so far
	beyond *limitError
}

// scan returns where the keys in data stand.
func scan(data []byte) (positions, error) {
	s := &scanner{data: data, line: 1, found: positions{}, arrays: map[string]int{}}
	if strings.HasPrefix(string(data[:min(3, len(data))]), "\xef\xbb\xbf") {
		s.pos, s.bol = 3, 3
	}
	s.document()
	if s.beyond != nil {
		return nil, s.beyond
	}
	return s.found, nil
}

// document reads table headers and key-value pairs to the end of the text.
func (s *scanner) document() {
	table := ""
	for {
		s.skipBlank()
		if s.eof() {
			return
		}
		ok := false
		if s.peek() == '[' {
			table, ok = s.header()
		} else {
			ok = s.pair(table, 0)
		}
		if !ok {
			return
		}
	}
}

// header reads [table] or [[table]] and returns its path.
func (s *scanner) header() (string, bool) {
	at := s.here()
	s.pos++
	isArray := s.accept('[')
	segments, ok := s.key()
	if !ok || !s.accept(']') || isArray && !s.accept(']') {
		return "", false
	}
	path := ""
	for i, segment := range segments {
		path = joinKey(path, segment)
		if !s.note(path, at) {
			return "", false
		}
		last := i == len(segments)-1
		if isArray && last {
			s.arrays[path]++
		}
		if n := s.arrays[path]; n > 0 {
			path = indexKey(path, n-1)
			s.note(path, at)
		}
	}
	return path, true
}

// pair reads `key = value` within the table at path.
func (s *scanner) pair(path string, depth int) bool {
	at := s.here()
	segments, ok := s.key()
	if !ok {
		return false
	}
	for _, segment := range segments {
		path = joinKey(path, segment)
		if !s.note(path, at) {
			return false
		}
	}
	s.skipSpace()
	if !s.accept('=') {
		return false
	}
	s.skipSpace()
	return s.value(path, depth)
}

// key reads a dotted key up to what follows it.
func (s *scanner) key() ([]string, bool) {
	var segments []string
	for {
		s.skipSpace()
		segment, ok := s.segment()
		if !ok {
			return nil, false
		}
		segments = append(segments, segment)
		if len(segments) > maxNesting {
			return nil, s.limit("keys are nested deeper than %d levels", maxNesting)
		}
		s.skipSpace()
		if !s.accept('.') {
			return segments, true
		}
	}
}

// segment reads one part of a dotted key, bare or quoted.
func (s *scanner) segment() (string, bool) {
	if s.eof() {
		return "", false
	}
	switch s.peek() {
	case '"', '\'':
		start := s.pos
		if !s.quoted() {
			return "", false
		}
		return unquote(string(s.data[start:s.pos]))
	}
	start := s.pos
	for !s.eof() && isBare(s.peek()) {
		s.pos++
	}
	return string(s.data[start:s.pos]), s.pos > start
}

// value reads the value of the key at path.
func (s *scanner) value(path string, depth int) bool {
	if depth >= maxNesting {
		return s.limit("values are nested deeper than %d levels", maxNesting)
	}
	if s.eof() {
		return false
	}
	switch s.peek() {
	case '[':
		return s.array(path, depth)
	case '{':
		return s.inlineTable(path, depth)
	case '"', '\'':
		if quote := string(s.data[s.pos : s.pos+1]); s.lookingAt(strings.Repeat(quote, 3)) {
			return s.multiLine(quote[0])
		}
		return s.quoted()
	}
	for !s.eof() && strings.IndexByte(",]}#\n", s.peek()) < 0 {
		s.pos++
	}
	return true
}

func (s *scanner) array(path string, depth int) bool {
	s.pos++
	for i := 0; ; i++ {
		s.skipBlank()
		if s.accept(']') {
			return true
		}
		element := indexKey(path, i)
		if s.eof() || !s.note(element, s.here()) || !s.value(element, depth+1) {
			return false
		}
		s.skipBlank()
		if !s.accept(',') && (s.eof() || s.peek() != ']') {
			return false
		}
	}
}

func (s *scanner) inlineTable(path string, depth int) bool {
	s.pos++
	for {
		s.skipBlank()
		if s.accept('}') {
			return true
		}
		if s.eof() || !s.pair(path, depth+1) {
			return false
		}
		s.skipBlank()
		if !s.accept(',') && (s.eof() || s.peek() != '}') {
			return false
		}
	}
}

// quoted skips a string on one line, quotes included.
func (s *scanner) quoted() bool {
	quote := s.peek()
	for s.pos++; !s.eof(); s.pos++ {
		switch c := s.peek(); {
		case c == '\n':
			return false
		case c == '\\' && quote == '"':
			s.pos++
		case c == quote:
			s.pos++
			return true
		}
	}
	return false
}

// multiLine skips a string in triple quotes. It may end in up to five of them:
// two may belong to the content.
func (s *scanner) multiLine(quote byte) bool {
	end := strings.Repeat(string(quote), 3)
	for s.pos += 3; !s.eof(); {
		if s.lookingAt(end) {
			s.pos += 3
			for range 2 {
				s.accept(quote)
			}
			return true
		}
		if s.peek() == '\\' && quote == '"' {
			s.step()
		}
		s.step()
	}
	return false
}

// skipBlank skips white space, line ends and comments.
func (s *scanner) skipBlank() {
	for !s.eof() {
		switch s.peek() {
		case ' ', '\t', '\r', '\n':
			s.step()
		case '#':
			for !s.eof() && s.peek() != '\n' {
				s.pos++
			}
		default:
			return
		}
	}
}

func (s *scanner) skipSpace() {
	for !s.eof() && (s.peek() == ' ' || s.peek() == '\t') {
		s.pos++
	}
}

// step moves over one octet and counts lines.
func (s *scanner) step() {
	if s.eof() {
		return
	}
	if s.data[s.pos] == '\n' {
		s.line++
		s.bol = s.pos + 1
	}
	s.pos++
}

func (s *scanner) eof() bool  { return s.pos >= len(s.data) }
func (s *scanner) peek() byte { return s.data[s.pos] }

func (s *scanner) here() position { return position{s.line, s.pos - s.bol + 1} }

func (s *scanner) accept(c byte) bool {
	if s.eof() || s.peek() != c {
		return false
	}
	s.pos++
	return true
}

func (s *scanner) lookingAt(prefix string) bool {
	return strings.HasPrefix(string(s.data[s.pos:min(s.pos+len(prefix), len(s.data))]), prefix)
}

// note records where a key stands; its first appearance counts. It is false when
// the file goes beyond a limit.
func (s *scanner) note(path string, at position) bool {
	if _, known := s.found[path]; known {
		return true
	}
	if len(path) > maxPath {
		return s.limit("the key is longer than %d characters", maxPath)
	}
	if len(s.found) == maxKeys {
		return s.limit("more than %d keys", maxKeys)
	}
	s.found[path] = at
	return true
}

// limit ends the scan with an error; it returns false for the convenience of its
// callers.
func (s *scanner) limit(format string, value int) bool {
	s.beyond = &limitError{s.here(), fmt.Sprintf(format, value)}
	return false
}

// joinKey appends a segment to a dotted path.
func joinKey(path, segment string) string {
	for i := range len(segment) {
		if !isBare(segment[i]) {
			segment = strconv.Quote(segment)
			break
		}
	}
	if segment == "" {
		segment = `""`
	}
	if path == "" {
		return segment
	}
	return path + "." + segment
}

// indexKey appends the index of an array element to a path.
func indexKey(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// isBare says whether c may stand in a key without quotes.
func isBare(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// unquote returns the content of a quoted key.
func unquote(s string) (string, bool) {
	body := s[1 : len(s)-1]
	if s[0] == '\'' || !strings.Contains(body, `\`) {
		return body, true
	}
	var b strings.Builder
	for i := 0; i < len(body); i++ {
		if body[i] != '\\' {
			b.WriteByte(body[i])
			continue
		}
		i++
		if i == len(body) {
			return "", false
		}
		digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[body[i]]
		if digits == 0 {
			c := strings.IndexByte(`btnfre"\`, body[i])
			if c < 0 {
				return "", false
			}
			b.WriteByte("\b\t\n\f\r\x1b\"\\"[c])
			continue
		}
		if i+digits >= len(body) {
			return "", false
		}
		r, err := strconv.ParseUint(body[i+1:i+1+digits], 16, 32)
		if err != nil {
			return "", false
		}
		b.WriteRune(rune(r))
		i += digits
	}
	return b.String(), true
}
