// Package message turns IKEv2 messages into bytes and back (RFC 7296 §3). It
// knows only bytes: no keys, no state, no policy. An Encrypted payload is left
// sealed; its owner opens it and parses the content with ParsePayloads.
//
// Parsing never keeps a reference to its input, accepts no length it has not
// checked, and bounds counts, so that a message costs memory in proportion to
// its size.
package message

import (
	"net/netip"

	"github.com/wayfarer-vpn/wayfarer/suite"
)

// SPI is the security parameter index of an IKE SA, 8 octets on the wire.
type SPI uint64

// ExchangeType is the exchange a message belongs to (RFC 7296 §3.1).
type ExchangeType uint8

// Exchange types.
const (
	IKESAInit     ExchangeType = 34
	IKEAuth       ExchangeType = 35
	CreateChildSA ExchangeType = 36
	Informational ExchangeType = 37
)

// Flags of the IKE header (RFC 7296 §3.1).
type Flags uint8

// Flag bits.
const (
	FlagInitiator Flags = 0x08 // sent by the original initiator of the IKE SA
	FlagVersion   Flags = 0x10
	FlagResponse  Flags = 0x20
)

// HeaderLen is the length of the IKE header in octets.
const HeaderLen = 28

// Header is the IKE header (RFC 7296 §3.1).
type Header struct {
	SPIi, SPIr  SPI
	NextPayload PayloadType
	Major       uint8 // 2
	Minor       uint8 // 0
	Exchange    ExchangeType
	Flags       Flags
	MessageID   uint32
	Length      uint32 // of the whole message, header included
}

// Response says whether the message is a response.
func (h *Header) Response() bool { return h.Flags&FlagResponse != 0 }

// FromInitiator says whether the original initiator of the IKE SA sent it.
func (h *Header) FromInitiator() bool { return h.Flags&FlagInitiator != 0 }

// PayloadType identifies a payload (RFC 7296 §3.2).
type PayloadType uint8

// Payload types.
const (
	TypeNone    PayloadType = 0
	TypeSA      PayloadType = 33
	TypeKE      PayloadType = 34
	TypeIDi     PayloadType = 35
	TypeIDr     PayloadType = 36
	TypeCert    PayloadType = 37
	TypeCertReq PayloadType = 38
	TypeAuth    PayloadType = 39
	TypeNonce   PayloadType = 40
	TypeNotify  PayloadType = 41
	TypeDelete  PayloadType = 42
	TypeVendor  PayloadType = 43
	TypeTSi     PayloadType = 44
	TypeTSr     PayloadType = 45
	TypeSK      PayloadType = 46
	TypeCP      PayloadType = 47
	TypeEAP     PayloadType = 48
	TypeSKF     PayloadType = 53
)

// Payload is one payload of a message: *SA, *KE, *ID, *Cert, *CertReq, *Auth,
// *Nonce, *Notify, *Delete, *VendorID, *TS, *Encrypted, *CP, *EAP or *Unknown.
type Payload interface {
	// Type is the payload type on the wire.
	Type() PayloadType
	// appendBody appends what follows the generic payload header.
	appendBody(b []byte) ([]byte, error)
}

// Message is a header and its payloads, in order.
type Message struct {
	Header
	Payloads []Payload
}

// ProtocolID names what a proposal, notify or delete is about (RFC 7296 §3.3.1).
type ProtocolID uint8

// Protocols.
const (
	ProtoNone ProtocolID = 0
	ProtoIKE  ProtocolID = 1
	ProtoAH   ProtocolID = 2
	ProtoESP  ProtocolID = 3
)

// SA is the Security Association payload (RFC 7296 §3.3).
type SA struct {
	Proposals []Proposal
}

// Proposal is one proposal of an SA payload (RFC 7296 §3.3.1).
type Proposal struct {
	Number     uint8
	Protocol   ProtocolID
	SPI        []byte // 0, 4 or 8 octets
	Transforms []Transform
}

// TransformType is the type of a transform (RFC 7296 §3.3.2).
type TransformType uint8

// Transform types.
const (
	TransformEncr  TransformType = 1
	TransformPRF   TransformType = 2
	TransformInteg TransformType = 3
	TransformKE    TransformType = 4
	TransformESN   TransformType = 5
)

// Transform is one transform of a proposal. KeyBits is the Key Length attribute,
// zero when it is absent. Unsupported is set when the transform carried an
// attribute this package does not know; such a transform must not be chosen
// (RFC 7296 §3.3.6).
type Transform struct {
	Type        TransformType
	ID          uint16
	KeyBits     uint16
	Unsupported bool
}

// KE is the Key Exchange payload (RFC 7296 §3.4).
type KE struct {
	Method suite.KEID
	Data   []byte
}

// IDType is the kind of an identification (RFC 7296 §3.5).
type IDType uint8

// Identification types.
const (
	IDIPv4   IDType = 1
	IDFQDN   IDType = 2
	IDRFC822 IDType = 3
	IDIPv6   IDType = 5
	IDDERDN  IDType = 9
	IDDERGN  IDType = 10
	IDKeyID  IDType = 11
	IDNull   IDType = 13
)

// ID is an Identification payload; Responder tells IDr from IDi (RFC 7296 §3.5).
// Body returns the octets that AUTH covers: type, three reserved octets, data.
type ID struct {
	Responder bool
	Kind      IDType
	Data      []byte
	reserved  [3]byte // as received, since AUTH covers it
}

// CertEncoding is the encoding of a certificate (RFC 7296 §3.6).
type CertEncoding uint8

// Certificate encodings.
const (
	CertX509Signature CertEncoding = 4
	CertCRL           CertEncoding = 7
)

// Cert is a Certificate payload (RFC 7296 §3.6).
type Cert struct {
	Encoding CertEncoding
	Data     []byte
}

// CertReq is a Certificate Request payload (RFC 7296 §3.7). For X.509 Data holds
// SHA-1 hashes of 20 octets of acceptable CAs' SubjectPublicKeyInfo.
type CertReq struct {
	Encoding CertEncoding
	Data     []byte
}

// AuthMethod is the method of an AUTH payload (RFC 7296 §3.8, RFC 7427 §3).
type AuthMethod uint8

// Authentication methods.
const (
	AuthRSA              AuthMethod = 1 // PKCS#1 v1.5
	AuthSharedKey        AuthMethod = 2
	AuthECDSA256         AuthMethod = 9 // RFC 4754
	AuthECDSA384         AuthMethod = 10
	AuthECDSA521         AuthMethod = 11
	AuthDigitalSignature AuthMethod = 14 // RFC 7427
)

// Auth is an Authentication payload (RFC 7296 §3.8).
type Auth struct {
	Method AuthMethod
	Data   []byte
}

// Nonce is a Nonce payload, 16 to 256 octets of data (RFC 7296 §3.9).
type Nonce struct {
	Data []byte
}

// Notify is a Notify payload (RFC 7296 §3.10).
type Notify struct {
	Protocol ProtocolID
	SPI      []byte // 0, 4 or 8 octets
	Kind     NotifyType
	Data     []byte
}

// Delete is a Delete payload (RFC 7296 §3.11). ESP SPIs are listed; for the IKE
// SA the list is empty.
type Delete struct {
	Protocol ProtocolID
	SPIs     []uint32
}

// VendorID is a Vendor ID payload (RFC 7296 §3.12).
type VendorID struct {
	Data []byte
}

// TS is a Traffic Selector payload; Responder tells TSr from TSi (RFC 7296 §3.13).
type TS struct {
	Responder bool
	Selectors []TrafficSelector
}

// TSType is the type of a traffic selector.
type TSType uint8

// Traffic selector types.
const (
	TSIPv4AddrRange TSType = 7
	TSIPv6AddrRange TSType = 8
)

// TrafficSelector is one selector of a TS payload (RFC 7296 §3.13.1). Selectors
// of unknown type are kept out of TS by the parser (they can never be chosen).
type TrafficSelector struct {
	Protocol           uint8
	StartPort, EndPort uint16
	Start, End         netip.Addr
}

// Encrypted is an SK payload (RFC 7296 §3.14) or, with Total > 0, an SKF payload
// (RFC 7383 §2.5). Inner is the type of the first payload inside. Sealed is IV,
// ciphertext and ICV. It is always the last payload of a message.
type Encrypted struct {
	Inner           PayloadType
	Fragment, Total uint16
	Sealed          []byte
	// Offset is where Sealed starts in the parsed message; what comes before it
	// is the associated data of an AEAD cipher (RFC 5282 §5.1).
	Offset int
}

// CPType is the type of a Configuration payload (RFC 7296 §3.15).
type CPType uint8

// Configuration payload types.
const (
	CFGRequest CPType = 1
	CFGReply   CPType = 2
	CFGSet     CPType = 3
	CFGAck     CPType = 4
)

// AttributeType is the type of a configuration attribute (RFC 7296 §3.15.1).
type AttributeType uint16

// Configuration attributes.
const (
	InternalIP4Address  AttributeType = 1
	InternalIP4Netmask  AttributeType = 2
	InternalIP4DNS      AttributeType = 3
	InternalIP4NBNS     AttributeType = 4
	InternalIP4DHCP     AttributeType = 6
	ApplicationVersion  AttributeType = 7
	InternalIP6Address  AttributeType = 8
	InternalIP6DNS      AttributeType = 10
	InternalIP6DHCP     AttributeType = 12
	InternalIP4Subnet   AttributeType = 13
	SupportedAttributes AttributeType = 14
	InternalIP6Subnet   AttributeType = 15
	InternalDNSDomain   AttributeType = 25 // RFC 8598
)

// CP is a Configuration payload (RFC 7296 §3.15).
type CP struct {
	Kind       CPType
	Attributes []Attribute
}

// Attribute is one configuration attribute; Value is as on the wire.
type Attribute struct {
	Type  AttributeType
	Value []byte
}

// EAP is an EAP payload; Data is the whole EAP packet (RFC 7296 §3.16).
type EAP struct {
	Data []byte
}

// Unknown is a payload of a type this package does not know. With Critical the
// message must be refused (RFC 7296 §2.5).
type Unknown struct {
	Kind     PayloadType
	Critical bool
	Data     []byte
}
