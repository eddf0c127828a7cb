package ike

import (
	"hash/maphash"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// maxShards bounds the number of engines: the shard is the lowest octet of our SPI.
const maxShards = 256

var routeSeed = maphash.MakeSeed()

// tagSPI writes the shard's number into the lowest octet of an SPI.
func tagSPI(spi message.SPI, shard, shards int) message.SPI {
	if shards <= 1 {
		return spi
	}
	return spi&^0xff | message.SPI(shard&0xff)
}

// ShardOf says which of several engines chose an IKE SPI.
func ShardOf(spi message.SPI, shards int) int {
	if shards <= 1 {
		return 0
	}
	return int(spi&0xff) % min(shards, maxShards)
}

// RouteDatagram says which engine an IKE message belongs to: the one that chose
// our SPI, or, for a request that opens an IKE SA, one chosen by the initiator's
// SPI and address, so that retransmissions meet the same engine. False means
// that the datagram is no IKE message.
func RouteDatagram(data []byte, pair locator.Pair, shards int) (int, bool) {
	h, err := message.ParseHeader(data)
	if err != nil {
		return 0, false
	}
	if h.Exchange == message.IKESAInit && !h.Response() {
		if shards <= 1 {
			return 0, true
		}
		sum := maphash.Comparable(routeSeed, struct {
			spi  message.SPI
			pair locator.Pair
		}{h.SPIi, pair})
		return int(sum % uint64(min(shards, maxShards))), true
	}
	if h.FromInitiator() {
		return ShardOf(h.SPIr, shards), true
	}
	return ShardOf(h.SPIi, shards), true
}
