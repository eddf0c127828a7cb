//go:build race

package tun

// raceEnabled: under the race detector sync.Pool drops entries on purpose.
const raceEnabled = true
