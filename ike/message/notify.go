package message

import (
	"encoding/binary"
	"fmt"

	"github.com/wayfarer-vpn/wayfarer/suite"
)

// NotifyType is the type of a Notify payload (RFC 7296 §3.10.1).
type NotifyType uint16

// firstStatus is the first notify type that is no error.
const firstStatus NotifyType = 16384

// IsError says whether the type is in the range of errors. An unknown error in a
// response means that the request failed; unknown status types are ignored.
func (t NotifyType) IsError() bool { return t < firstStatus }

// Error types, with the RFC that defines each.
const (
	UnsupportedCriticalPayload NotifyType = 1  // 7296 §2.5; data: payload type
	InvalidIKESPI              NotifyType = 4  // 7296 §2.21
	InvalidMajorVersion        NotifyType = 5  // 7296 §2.5
	InvalidSyntax              NotifyType = 7  // 7296 §3.10.1
	InvalidMessageID           NotifyType = 9  // 7296 §2.3
	InvalidSPI                 NotifyType = 11 // 7296 §1.5
	NoProposalChosen           NotifyType = 14 // 7296 §2.7
	InvalidKEPayload           NotifyType = 17 // 7296 §1.2; data: accepted method
	AuthenticationFailed       NotifyType = 24 // 7296 §2.21.2
	SinglePairRequired         NotifyType = 34 // 7296 §2.9
	NoAdditionalSAs            NotifyType = 35 // 7296 §1.3
	InternalAddressFailure     NotifyType = 36 // 7296 §3.15.4
	FailedCPRequired           NotifyType = 37 // 7296 §2.19
	TSUnacceptable             NotifyType = 38 // 7296 §2.9
	InvalidSelectors           NotifyType = 39 // 7296 §3.10.1
	UnacceptableAddresses      NotifyType = 40 // 4555 §4.1.1
	UnexpectedNATDetected      NotifyType = 41 // 4555 §4.1.2
	TemporaryFailure           NotifyType = 43 // 7296 §2.25
	ChildSANotFound            NotifyType = 44 // 7296 §2.25
	StateNotFound              NotifyType = 47 // 9370 §2.2.4
	TSMaxQueue                 NotifyType = 48 // 9611 §5.2
)

// Status types, with the RFC that defines each.
const (
	InitialContact                NotifyType = 16384 // 7296 §2.4
	SetWindowSize                 NotifyType = 16385 // 7296 §2.3
	AdditionalTSPossible          NotifyType = 16386 // 7296 §2.9
	IPCompSupported               NotifyType = 16387 // 7296 §2.22
	NATDetectionSourceIP          NotifyType = 16388 // 7296 §2.23
	NATDetectionDestinationIP     NotifyType = 16389 // 7296 §2.23
	Cookie                        NotifyType = 16390 // 7296 §2.6
	UseTransportMode              NotifyType = 16391 // 7296 §1.3.1
	HTTPCertLookupSupported       NotifyType = 16392 // 7296 §3.6
	RekeySA                       NotifyType = 16393 // 7296 §1.3.3
	ESPTFCPaddingNotSupported     NotifyType = 16394 // 7296 §1.3.1
	NonFirstFragmentsAlso         NotifyType = 16395 // 7296 §1.3.1
	MOBIKESupported               NotifyType = 16396 // 4555 §4.2.1
	AdditionalIP4Address          NotifyType = 16397 // 4555 §4.2.2
	AdditionalIP6Address          NotifyType = 16398 // 4555 §4.2.2
	NoAdditionalAddresses         NotifyType = 16399 // 4555 §4.2.3
	UpdateSAAddresses             NotifyType = 16400 // 4555 §4.2.4
	Cookie2                       NotifyType = 16401 // 4555 §4.2.5
	NoNATsAllowed                 NotifyType = 16402 // 4555 §4.2.6
	AuthLifetime                  NotifyType = 16403 // 4478 §3
	MultipleAuthSupported         NotifyType = 16404 // 4739 §3
	AnotherAuthFollows            NotifyType = 16405 // 4739 §3
	RedirectSupported             NotifyType = 16406 // 5685 §9
	Redirect                      NotifyType = 16407 // 5685 §9
	RedirectedFrom                NotifyType = 16408 // 5685 §9
	TicketLTOpaque                NotifyType = 16409 // 5723 §7
	TicketRequest                 NotifyType = 16410 // 5723 §7
	TicketACK                     NotifyType = 16411 // 5723 §7
	TicketNACK                    NotifyType = 16412 // 5723 §7
	TicketOpaque                  NotifyType = 16413 // 5723 §7.2
	LinkID                        NotifyType = 16414 // 5739 §6
	EAPOnlyAuthentication         NotifyType = 16417 // 5998 §3
	ChildlessSupported            NotifyType = 16418 // 6023 §4
	QuickCrashDetection           NotifyType = 16419 // 6290 §4.1
	MessageIDSyncSupported        NotifyType = 16420 // 6311 §6
	ReplayCounterSyncSupported    NotifyType = 16421 // 6311 §6
	MessageIDSync                 NotifyType = 16422 // 6311 §6
	ReplayCounterSync             NotifyType = 16423 // 6311 §6
	ERXSupported                  NotifyType = 16427 // 6867 §4
	FragmentationSupported        NotifyType = 16430 // 7383 §2.3
	SignatureHashAlgorithms       NotifyType = 16431 // 7427 §4
	Puzzle                        NotifyType = 16434 // 8019 §8.1
	UsePPK                        NotifyType = 16435 // 8784 §3
	PPKIdentity                   NotifyType = 16436 // 8784 §3
	NoPPKAuth                     NotifyType = 16437 // 8784 §3
	IntermediateExchangeSupported NotifyType = 16438 // 9242 §3.1
	IP4Allowed                    NotifyType = 16439 // 8983
	IP6Allowed                    NotifyType = 16440 // 8983
	AdditionalKeyExchange         NotifyType = 16441 // 9370 §2.2.4
	UseAggfrag                    NotifyType = 16442 // 9347 §7.3
	SupportedAuthMethods          NotifyType = 16443 // 9593 §3.2
	SAResourceInfo                NotifyType = 16444 // 9611 §5.1

	// UDPEncapsulation is of the private range: the sender says openly whether it
	// wants ESP in UDP on every path, so that NAT detection can tell the truth. Its
	// data is the true NAT_DETECTION_SOURCE_IP hash if it does, and empty if not.
	UDPEncapsulation NotifyType = 63302

	// PathMTUPadding fills up a request; of the private use range, where a receiver
	// ignores what it does not know (7296 §3.10.1).
	PathMTUPadding NotifyType = 54016
)

var notifyNames = map[NotifyType]string{
	UnsupportedCriticalPayload:    "UNSUPPORTED_CRITICAL_PAYLOAD",
	InvalidIKESPI:                 "INVALID_IKE_SPI",
	InvalidMajorVersion:           "INVALID_MAJOR_VERSION",
	InvalidSyntax:                 "INVALID_SYNTAX",
	InvalidMessageID:              "INVALID_MESSAGE_ID",
	InvalidSPI:                    "INVALID_SPI",
	NoProposalChosen:              "NO_PROPOSAL_CHOSEN",
	InvalidKEPayload:              "INVALID_KE_PAYLOAD",
	AuthenticationFailed:          "AUTHENTICATION_FAILED",
	SinglePairRequired:            "SINGLE_PAIR_REQUIRED",
	NoAdditionalSAs:               "NO_ADDITIONAL_SAS",
	InternalAddressFailure:        "INTERNAL_ADDRESS_FAILURE",
	FailedCPRequired:              "FAILED_CP_REQUIRED",
	TSUnacceptable:                "TS_UNACCEPTABLE",
	InvalidSelectors:              "INVALID_SELECTORS",
	UnacceptableAddresses:         "UNACCEPTABLE_ADDRESSES",
	UnexpectedNATDetected:         "UNEXPECTED_NAT_DETECTED",
	TemporaryFailure:              "TEMPORARY_FAILURE",
	ChildSANotFound:               "CHILD_SA_NOT_FOUND",
	StateNotFound:                 "STATE_NOT_FOUND",
	TSMaxQueue:                    "TS_MAX_QUEUE",
	InitialContact:                "INITIAL_CONTACT",
	SetWindowSize:                 "SET_WINDOW_SIZE",
	AdditionalTSPossible:          "ADDITIONAL_TS_POSSIBLE",
	IPCompSupported:               "IPCOMP_SUPPORTED",
	NATDetectionSourceIP:          "NAT_DETECTION_SOURCE_IP",
	NATDetectionDestinationIP:     "NAT_DETECTION_DESTINATION_IP",
	Cookie:                        "COOKIE",
	UseTransportMode:              "USE_TRANSPORT_MODE",
	HTTPCertLookupSupported:       "HTTP_CERT_LOOKUP_SUPPORTED",
	RekeySA:                       "REKEY_SA",
	ESPTFCPaddingNotSupported:     "ESP_TFC_PADDING_NOT_SUPPORTED",
	NonFirstFragmentsAlso:         "NON_FIRST_FRAGMENTS_ALSO",
	MOBIKESupported:               "MOBIKE_SUPPORTED",
	AdditionalIP4Address:          "ADDITIONAL_IP4_ADDRESS",
	AdditionalIP6Address:          "ADDITIONAL_IP6_ADDRESS",
	NoAdditionalAddresses:         "NO_ADDITIONAL_ADDRESSES",
	UpdateSAAddresses:             "UPDATE_SA_ADDRESSES",
	Cookie2:                       "COOKIE2",
	NoNATsAllowed:                 "NO_NATS_ALLOWED",
	AuthLifetime:                  "AUTH_LIFETIME",
	MultipleAuthSupported:         "MULTIPLE_AUTH_SUPPORTED",
	AnotherAuthFollows:            "ANOTHER_AUTH_FOLLOWS",
	RedirectSupported:             "REDIRECT_SUPPORTED",
	Redirect:                      "REDIRECT",
	RedirectedFrom:                "REDIRECTED_FROM",
	TicketLTOpaque:                "TICKET_LT_OPAQUE",
	TicketRequest:                 "TICKET_REQUEST",
	TicketACK:                     "TICKET_ACK",
	TicketNACK:                    "TICKET_NACK",
	TicketOpaque:                  "TICKET_OPAQUE",
	LinkID:                        "LINK_ID",
	EAPOnlyAuthentication:         "EAP_ONLY_AUTHENTICATION",
	ChildlessSupported:            "CHILDLESS_IKEV2_SUPPORTED",
	QuickCrashDetection:           "QUICK_CRASH_DETECTION",
	MessageIDSyncSupported:        "IKEV2_MESSAGE_ID_SYNC_SUPPORTED",
	ReplayCounterSyncSupported:    "IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED",
	MessageIDSync:                 "IKEV2_MESSAGE_ID_SYNC",
	ReplayCounterSync:             "IPSEC_REPLAY_COUNTER_SYNC",
	ERXSupported:                  "ERX_SUPPORTED",
	FragmentationSupported:        "IKEV2_FRAGMENTATION_SUPPORTED",
	SignatureHashAlgorithms:       "SIGNATURE_HASH_ALGORITHMS",
	Puzzle:                        "PUZZLE",
	UsePPK:                        "USE_PPK",
	PPKIdentity:                   "PPK_IDENTITY",
	NoPPKAuth:                     "NO_PPK_AUTH",
	IntermediateExchangeSupported: "INTERMEDIATE_EXCHANGE_SUPPORTED",
	IP4Allowed:                    "IP4_ALLOWED",
	IP6Allowed:                    "IP6_ALLOWED",
	AdditionalKeyExchange:         "ADDITIONAL_KEY_EXCHANGE",
	UseAggfrag:                    "USE_AGGFRAG",
	SupportedAuthMethods:          "SUPPORTED_AUTH_METHODS",
	PathMTUPadding:                "PATH_MTU_PADDING",
	SAResourceInfo:                "SA_RESOURCE_INFO",
	UDPEncapsulation:              "UDP_ENCAPSULATION",
}

// String returns the name of the type as in its RFC.
func (t NotifyType) String() string {
	if name, ok := notifyNames[t]; ok {
		return name
	}
	if t.IsError() {
		return fmt.Sprintf("error notify %d", uint16(t))
	}
	return fmt.Sprintf("status notify %d", uint16(t))
}

const notifyHeaderLen = 4

// Type implements Payload.
func (*Notify) Type() PayloadType { return TypeNotify }

// validNotifySPI says whether a Notify payload can have an SPI of that length.
// Senders are not of one mind about which notify has one, so the protocol is not
// taken into account.
func validNotifySPI(n int) bool { return n == 0 || n == 4 || n == 8 }

func parseNotify(b []byte) (*Notify, error) {
	if len(b) < notifyHeaderLen {
		return nil, malformed(TypeNotify, "cut off in its header")
	}
	n := &Notify{Protocol: ProtocolID(b[0]), Kind: NotifyType(binary.BigEndian.Uint16(b[2:]))}
	spiLen := int(b[1])
	b = b[notifyHeaderLen:]
	if !validNotifySPI(spiLen) || spiLen > len(b) {
		return nil, malformed(TypeNotify, "%v with an SPI of %d octets", n.Kind, spiLen)
	}
	n.SPI, n.Data = clone(b[:spiLen]), clone(b[spiLen:])
	return n, nil
}

func (n *Notify) appendBody(b []byte) ([]byte, error) {
	if !validNotifySPI(len(n.SPI)) {
		return nil, fmt.Errorf("%v with an SPI of %d octets", n.Kind, len(n.SPI))
	}
	b = append(b, byte(n.Protocol), byte(len(n.SPI)))
	b = binary.BigEndian.AppendUint16(b, uint16(n.Kind))
	b = append(b, n.SPI...)
	return append(b, n.Data...), nil
}

// NewInvalidKE makes the INVALID_KE_PAYLOAD notify that asks for another method
// (RFC 7296 §1.2).
func NewInvalidKE(method suite.KEID) *Notify {
	return &Notify{Kind: InvalidKEPayload, Data: binary.BigEndian.AppendUint16(nil, uint16(method))}
}

// KEMethod returns the method that an INVALID_KE_PAYLOAD notify asks for.
func (n *Notify) KEMethod() (suite.KEID, bool) {
	if n.Kind != InvalidKEPayload || len(n.Data) != 2 {
		return 0, false
	}
	return suite.KEID(binary.BigEndian.Uint16(n.Data)), true
}

// NewSignatureHashes makes the SIGNATURE_HASH_ALGORITHMS notify (RFC 7427 §4).
func NewSignatureHashes(hashes []suite.HashID) *Notify {
	n := &Notify{Kind: SignatureHashAlgorithms}
	for _, h := range hashes {
		n.Data = binary.BigEndian.AppendUint16(n.Data, uint16(h))
	}
	return n
}

// maxSignatureHashes bounds the list that SignatureHashes returns.
const maxSignatureHashes = 64

// SignatureHashes returns the hashes that a SIGNATURE_HASH_ALGORITHMS notify
// lists, unknown ones included. It is false for other notifies, and for data
// that is no such list.
func (n *Notify) SignatureHashes() ([]suite.HashID, bool) {
	if n.Kind != SignatureHashAlgorithms || len(n.Data)%2 != 0 || len(n.Data) > 2*maxSignatureHashes {
		return nil, false
	}
	var hashes []suite.HashID
	for b := n.Data; len(b) > 0; b = b[2:] {
		hashes = append(hashes, suite.HashID(binary.BigEndian.Uint16(b)))
	}
	return hashes, true
}
