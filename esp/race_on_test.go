//go:build race

package esp

// raceEnabled: under the race detector sync.Pool drops entries on purpose.
const raceEnabled = true
