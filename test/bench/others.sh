# others.sh - what Wayfarer is compared with, with the contract of peer.sh; sourced.
#
# veth            no tunnel: the most that the machine and the load generator can do
# wg              wireguard-go, the version that go.mod pins, as WGPEER (the program of
#                 test/bench/wgpeer), inner MTU 1420
# strongswan      two charons with kernel-libipsec, so ESP in user space, ESP with
#                 AES-128-GCM, OpenSSL's cipher
#
# SRV_OUT, CLI_OUT  outer addresses of both ends
SRV_OUT=${SRV_OUT:-192.168.77.1} CLI_OUT=${CLI_OUT:-192.168.77.2}
INNER_S=10.77.0.1 INNER_C=10.77.0.2

# --- no tunnel ------------------------------------------------------------------
veth_server() { ip -n "$1" addr add $INNER_S/32 dev lo && ip -n "$1" route add $INNER_C/32 via "$CLI_OUT" && : >"$2/server.pids"; }
veth_client() { ip -n "$1" addr add $INNER_C/32 dev lo && ip -n "$1" route add $INNER_S/32 via "$SRV_OUT" src $INNER_C && : >"$2/client.pids"; }
veth_inner() { echo $INNER_S; }

# --- wireguard-go ---------------------------------------------------------------
# wg_end NS DIR server|client 1|2 INNER PEER [ENDPOINT]
wg_end() {
	ip netns exec "$1" "$WGPEER" wgb "$4" 51820 ${7:+"$7"} </dev/null >"$2/$3.log" 2>&1 &
	echo $! >"$2/$3.pids"
	ours_ready 10 grep -q ready "$2/$3.log" && ip -n "$1" link set wgb up && ip -n "$1" addr add "$5/32" dev wgb && ip -n "$1" route add "$6/32" dev wgb
}
wg_server() { wg_end "$1" "$2" server 1 $INNER_S $INNER_C; }
wg_client() { wg_end "$1" "$2" client 2 $INNER_C $INNER_S "$SRV_OUT:51820"; }
wg_inner() { echo $INNER_S; }

# --- strongSwan -----------------------------------------------------------------
CHARON=${CHARON:-/usr/lib/ipsec/charon}

# charon_start NS DIR server|client: with the configuration of swanctl that stands in
# DIR/NAME.swanctl. A /run of its own: the path of charon's pid file is fixed.
charon_start() {
	cat >"$2/$3.conf" <<-C
		charon {
		  load = random nonce openssl aes sha2 sha1 hmac gcm curve25519 kdf drbg pem pkcs1 pkcs8 x509 pubkey kernel-libipsec kernel-netlink socket-default vici updown
		  plugins {
		    vici { socket = unix://$2/$3.vici }
		    kernel-libipsec { load = yes }
		  }
		  filelog { f { path = $2/$3.log
		    default = 0 } }
		}
	C
	rm -f "$2/$3.vici"
	ip netns exec "$1" unshare --mount sh -c 'mount -t tmpfs none /run && STRONGSWAN_CONF=$1 exec "$2"' sh "$2/$3.conf" "$CHARON" </dev/null >"$2/$3.out" 2>&1 &
	echo $! >"$2/$3.pids"
	ours_ready 10 test -S "$2/$3.vici" && charon_ctl "$2" "$3" --load-all >"$2/$3.load" 2>&1
}
charon_ctl() {
	local d=$1 end=$2
	shift 2
	STRONGSWAN_CONF=$d/$end.conf SWANCTL_DIR=$d/$end.swanctl swanctl "$@" --uri "unix://$d/$end.vici"
}
# charon_connection DIR server|client LOCAL REMOTE CONNECTION CHILD MORE
charon_connection() {
	mkdir -p "$1/$2.swanctl"
	cat >"$1/$2.swanctl/swanctl.conf" <<-C
		connections { bench {
		  version = 2
		  proposals = aes128gcm16-prfsha256-curve25519
		  $5
		  local { auth = psk
		    id = $3 }
		  remote { auth = psk
		    id = $4 }
		  children { bench {
		    esp_proposals = aes128gcm16
		    rekey_time = 0
		    $6 } } } }
		secrets { ike-bench { secret = "only for benchmarks" } }
		$7
	C
}
strongswan_server() {
	ip -n "$1" addr add $INNER_S/32 dev lo
	charon_connection "$2" server server.bench client.bench "local_addrs = $SRV_OUT
		  pools = bench" "local_ts = $INNER_S/32" "pools { bench { addrs = $INNER_C/32 } }" &&
		charon_start "$1" "$2" server
}
strongswan_client() {
	charon_connection "$2" client client.bench server.bench "remote_addrs = $SRV_OUT
		  vips = 0.0.0.0" "remote_ts = $INNER_S/32" "" &&
		charon_start "$1" "$2" client && charon_ctl "$2" client --initiate --child bench --timeout 10 >"$2/client.init" 2>&1
}
strongswan_inner() { echo $INNER_S; }
