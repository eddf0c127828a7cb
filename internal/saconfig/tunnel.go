package saconfig

import "fmt"

// Limits of packet sizes and windows.
const (
	// MinMTU6 is what IPv6 needs (RFC 8200 §5). A smaller MTU is possible for IPv4 alone,
	// down to MinMTU4 (RFC 791).
	MinMTU6 = 1280
	MinMTU4 = 576
	MaxMTU  = 65535

	maxReplayWindow = 1 << 20
)

// CheckMTU says whether a tunnel can have that MTU; zero chooses one.
func CheckMTU(mtu int) error {
	if mtu != 0 && (mtu < MinMTU4 || mtu > MaxMTU) {
		return fmt.Errorf("%d is not between %d and %d (IPv6 needs %d); 0 chooses", mtu, MinMTU4, MaxMTU, MinMTU6)
	}
	return nil
}

// CheckPathMTU says whether that can be the largest packet of the networks outside; zero
// finds out.
func CheckPathMTU(mtu int) error {
	if mtu != 0 && (mtu < MinMTU4 || mtu > MaxMTU) {
		return fmt.Errorf("%d is not between %d and %d; 0 finds out", mtu, MinMTU4, MaxMTU)
	}
	return nil
}

// CheckReplayWindow says whether an anti-replay window can have so many packets; zero is
// the default.
func CheckReplayWindow(packets int) error {
	if packets < 0 || packets > maxReplayWindow {
		return fmt.Errorf("%d is not between 0 and %d", packets, maxReplayWindow)
	}
	return nil
}
