//go:build race

package ike

// raceDetector says that everything is several times slower.
const raceDetector = true
