//go:build race

package transport

const raceEnabled = true // sync.Pool drops items at random then
