package config

import (
	"errors"
	"regexp"
	"strings"

	"github.com/BurntSushi/toml"
)

// syntaxError puts the parser's complaint and the line it is about into words. Where
// the keys stand, as far as they could be found, tells whether that is part of a secret.
func syntaxError(data []byte, where positions, err error) (position, string) {
	var pe toml.ParseError
	if !errors.As(err, &pe) {
		return position{}, strings.TrimPrefix(err.Error(), "toml: ")
	}
	at := position{line: pe.Position.Line, column: pe.Position.Col}
	lines := strings.Split(string(data), "\n")
	if at.line < 1 || at.line > len(lines) {
		return at, pe.Message
	}
	line := strings.TrimRight(lines[at.line-1], "\r")
	if mayHoldSecret(line) || mayHoldSecret(pe.LastKey) || where.secretAt(at.line) {
		if harmless.MatchString(pe.Message) {
			return at, pe.Message
		}
		return at, "the value cannot be read: text has to be in quotes"
	}
	const width = 120
	if len(line) > width {
		line = strings.ToValidUTF8(line[:width], "") + "…"
	}
	return at, pe.Message + "\n    " + strings.ReplaceAll(line, "\t", " ")
}

// harmless are the parser's messages that quote single characters of the text, names of
// keys, or nothing. Others repeat a value, in quotes or without.
var harmless = regexp.MustCompile(`^(strings cannot contain newlines|newlines not allowed within inline tables|unexpected EOF.*|Key '[^']*' (has|was) already .*|` +
	`(expected|unexpected) [^"0-9]*|expected value but found '.' instead)$`)

// secretAt says whether a line may belong to a secret, because the last key that begins
// before it, or one there, may hold one: a value can have several lines, in which its key
// is not seen.
func (p positions) secretAt(line int) bool {
	before := 0
	for _, at := range p {
		if at.line < line {
			before = max(before, at.line)
		}
	}
	for key, at := range p {
		if (at.line == line || at.line == before) && mayHoldSecret(key) {
			return true
		}
	}
	return false
}

// mayHoldSecret recognises lines that must not be repeated in an error.
func mayHoldSecret(line string) bool {
	line = strings.ToLower(line)
	for _, word := range []string{"secret", "psk", "pass", "key", "token", "pin", "credential"} {
		if strings.Contains(line, word) {
			return true
		}
	}
	return false
}
