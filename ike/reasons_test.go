package ike

import (
	"testing"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// TestEveryErrorNotifyHasAReason: the errors of RFC 7296 and RFC 4555 have reasons of
// their own.
func TestEveryErrorNotifyHasAReason(t *testing.T) {
	for _, n := range []message.NotifyType{
		message.UnsupportedCriticalPayload, message.InvalidIKESPI, message.InvalidMajorVersion, message.InvalidSyntax,
		message.InvalidMessageID, message.InvalidSPI, message.NoProposalChosen, message.InvalidKEPayload,
		message.AuthenticationFailed, message.SinglePairRequired, message.NoAdditionalSAs, message.InternalAddressFailure,
		message.FailedCPRequired, message.TSUnacceptable, message.InvalidSelectors, message.UnacceptableAddresses,
		message.UnexpectedNATDetected, message.TemporaryFailure, message.ChildSANotFound,
	} {
		if c := reasonFor(n); c == reason.ProtocolError || c.NotifyName() != n.String() {
			t.Errorf("%v: %s", n, c)
		}
	}
	if c := reasonFor(message.NotifyType(8000)); c != reason.ProtocolError {
		t.Errorf("an error that is not known: %s", c)
	}
}
