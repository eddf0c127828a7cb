// Package service is what a daemon has to do with those who run it: a log on standard
// error, and the service manager that is told when it is ready and whether it still
// lives (sd_notify(3)).
package service

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// Formats of a log.
const (
	formatText = "text"
	formatJSON = "json"
)

// LogConfig says what is logged, to standard error.
type LogConfig struct {
	Level  string `toml:"level"`  // debug, info, warn, error
	Format string `toml:"format"` // text, json
}

// DefaultLog is the log without settings.
func DefaultLog() LogConfig { return LogConfig{Level: "info", Format: formatText} }

// Check reports what is wrong by problem, with the key below [log], and returns the level.
func (c LogConfig) Check(problem func(key string, err error)) slog.Level {
	if c.Format != formatText && c.Format != formatJSON {
		problem("format", fmt.Errorf("%.40q is neither text nor json", c.Format))
	}
	level, err := ParseLevel(c.Level)
	if err != nil {
		problem("level", err)
	}
	return level
}

// ParseLevel reads a log level.
func ParseLevel(s string) (slog.Level, error) {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	level, ok := levels[strings.ToLower(s)]
	if !ok {
		return slog.LevelInfo, fmt.Errorf("%.40q is none of debug, info, warn and error", s)
	}
	return level, nil
}

// NewHandler writes a log. Under a service manager that stamps lines itself, text for
// standard error goes without the time. The level may be nil, for info and above.
func NewHandler(out io.Writer, format string, level slog.Leveler) slog.Handler {
	o := &slog.HandlerOptions{Level: level}
	if format == formatJSON {
		return slog.NewJSONHandler(out, o)
	}
	if out == os.Stderr && os.Getenv("JOURNAL_STREAM") != "" {
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.NewTextHandler(out, o)
}
