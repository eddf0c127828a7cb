//go:build !race

package mobike

const raceDetector = false
