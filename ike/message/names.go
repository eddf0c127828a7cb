package message

import "fmt"

// Names are those of RFC 7296 §3, as they appear in other programs' logs.

// String returns the SPI in hexadecimal, all 16 digits.
func (s SPI) String() string { return fmt.Sprintf("%016x", uint64(s)) }

// String returns the name of the exchange.
func (t ExchangeType) String() string {
	switch t {
	case IKESAInit:
		return "IKE_SA_INIT"
	case IKEAuth:
		return "IKE_AUTH"
	case CreateChildSA:
		return "CREATE_CHILD_SA"
	case Informational:
		return "INFORMATIONAL"
	}
	return fmt.Sprintf("exchange %d", uint8(t))
}

var payloadNames = map[PayloadType]string{
	TypeSA: "SA", TypeKE: "KE", TypeIDi: "IDi", TypeIDr: "IDr", TypeCert: "CERT",
	TypeCertReq: "CERTREQ", TypeAuth: "AUTH", TypeNonce: "Nonce", TypeNotify: "N",
	TypeDelete: "D", TypeVendor: "V", TypeTSi: "TSi", TypeTSr: "TSr", TypeSK: "SK",
	TypeCP: "CP", TypeEAP: "EAP", TypeSKF: "SKF",
}

// known says whether this package has a Go type for the payload.
func (t PayloadType) known() bool {
	_, ok := payloadNames[t]
	return ok || t == TypeNone
}

// String returns the notation of the payload.
func (t PayloadType) String() string {
	if t == TypeNone {
		return "none"
	}
	if name, ok := payloadNames[t]; ok {
		return name
	}
	return fmt.Sprintf("payload %d", uint8(t))
}

// String returns the name of the protocol.
func (p ProtocolID) String() string {
	switch p {
	case ProtoNone:
		return "none"
	case ProtoIKE:
		return "IKE"
	case ProtoAH:
		return "AH"
	case ProtoESP:
		return "ESP"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// String returns the short name of the transform type.
func (t TransformType) String() string {
	switch t {
	case TransformEncr:
		return "ENCR"
	case TransformPRF:
		return "PRF"
	case TransformInteg:
		return "INTEG"
	case TransformKE:
		return "KE"
	case TransformESN:
		return "ESN"
	}
	return fmt.Sprintf("transform type %d", uint8(t))
}

// String returns the name of the identification type.
func (t IDType) String() string {
	switch t {
	case IDIPv4:
		return "ID_IPV4_ADDR"
	case IDFQDN:
		return "ID_FQDN"
	case IDRFC822:
		return "ID_RFC822_ADDR"
	case IDIPv6:
		return "ID_IPV6_ADDR"
	case IDDERDN:
		return "ID_DER_ASN1_DN"
	case IDDERGN:
		return "ID_DER_ASN1_GN"
	case IDKeyID:
		return "ID_KEY_ID"
	case IDNull:
		return "ID_NULL"
	}
	return fmt.Sprintf("ID type %d", uint8(t))
}

// String returns what the encoding holds.
func (e CertEncoding) String() string {
	switch e {
	case CertX509Signature:
		return "X.509 certificate"
	case CertCRL:
		return "CRL"
	}
	return fmt.Sprintf("certificate encoding %d", uint8(e))
}

// String returns the name of the method.
func (m AuthMethod) String() string {
	switch m {
	case AuthRSA:
		return "RSA signature"
	case AuthSharedKey:
		return "shared key"
	case AuthECDSA256:
		return "ECDSA P-256"
	case AuthECDSA384:
		return "ECDSA P-384"
	case AuthECDSA521:
		return "ECDSA P-521"
	case AuthDigitalSignature:
		return "digital signature"
	}
	return fmt.Sprintf("authentication method %d", uint8(m))
}

// String returns the name of the configuration payload type.
func (t CPType) String() string {
	switch t {
	case CFGRequest:
		return "CFG_REQUEST"
	case CFGReply:
		return "CFG_REPLY"
	case CFGSet:
		return "CFG_SET"
	case CFGAck:
		return "CFG_ACK"
	}
	return fmt.Sprintf("CFG type %d", uint8(t))
}

var attributeNames = map[AttributeType]string{
	InternalIP4Address: "INTERNAL_IP4_ADDRESS", InternalIP4Netmask: "INTERNAL_IP4_NETMASK",
	InternalIP4DNS: "INTERNAL_IP4_DNS", InternalIP4NBNS: "INTERNAL_IP4_NBNS",
	InternalIP4DHCP: "INTERNAL_IP4_DHCP", ApplicationVersion: "APPLICATION_VERSION",
	InternalIP6Address: "INTERNAL_IP6_ADDRESS", InternalIP6DNS: "INTERNAL_IP6_DNS",
	InternalIP6DHCP: "INTERNAL_IP6_DHCP", InternalIP4Subnet: "INTERNAL_IP4_SUBNET",
	SupportedAttributes: "SUPPORTED_ATTRIBUTES", InternalIP6Subnet: "INTERNAL_IP6_SUBNET",
	InternalDNSDomain: "INTERNAL_DNS_DOMAIN",
}

// String returns the name of the configuration attribute.
func (t AttributeType) String() string {
	if name, ok := attributeNames[t]; ok {
		return name
	}
	return fmt.Sprintf("attribute %d", uint16(t))
}
