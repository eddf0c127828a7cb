//go:build !race

package ike

const raceDetector = false
