package client

import (
	"bytes"
	"sync"
)

// Journal keeps the last lines of the log, for "vpn-client logs" on machines without
// a system journal.
type Journal struct {
	mu    sync.Mutex
	lines []string
	next  int // where the next line goes once the ring is full
	total uint64
	bell  chan struct{} // closed at the next line
}

// JournalLines is how many lines a daemon keeps.
const JournalLines = 1000

// maxJournalLine cuts lines that are unreasonably long.
const maxJournalLine = 4 << 10

// NewJournal keeps n lines.
func NewJournal(n int) *Journal {
	return &Journal{lines: make([]string, 0, n), bell: make(chan struct{})}
}

// Write takes whole lines, as the handlers of log/slog write them.
func (j *Journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for line := range bytes.Lines(p) {
		line = bytes.TrimRight(line, "\n")
		j.add(string(line[:min(len(line), maxJournalLine)]))
	}
	close(j.bell)
	j.bell = make(chan struct{})
	return len(p), nil
}

func (j *Journal) add(line string) {
	j.total++
	if len(j.lines) < cap(j.lines) {
		j.lines = append(j.lines, line)
		return
	}
	j.lines[j.next] = line
	j.next = (j.next + 1) % len(j.lines)
}

// Since returns the lines after the first n of all, as far as they are kept, the
// number of all lines so far, and a channel that is closed when there are more.
func (j *Journal) Since(n uint64) (lines []string, total uint64, more <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	kept := uint64(len(j.lines))
	first := j.total - kept // lines that are forgotten
	for i := max(n, first); i < j.total; i++ {
		lines = append(lines, j.lines[(uint64(j.next)+i-first)%kept])
	}
	return lines, j.total, j.bell
}
