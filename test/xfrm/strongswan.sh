#!/usr/bin/env bash
# strongswan.sh - our client against strongSwan with its kernel plugin as gateway, and
# strongSwan as client against our gateway; both sides use the kernel's ESP.
. "$(dirname "$0")/lib.sh"
charon=$(ls /usr/lib/ipsec/charon /usr/libexec/ipsec/charon 2>/dev/null | head -1)
if [ -z "$charon" ] || ! command -v swanctl >/dev/null; then
	echo "SKIP $TEST: strongSwan is not installed (strongswan-charon strongswan-swanctl libstrongswan-standard-plugins)"
	exit 0
fi
begin
SECRET="of this test only"

# swan MACHINE: start charon there; swanctl.conf is on standard input.
swan() {
	local d=$WORK/swan-$1; mkdir -p "$d"
	cat >"$d/swanctl.conf"
	cat >"$d/strongswan.conf" <<-C
		charon {
		  load_modular = no
		  load = random nonce openssl kdf pem kernel-netlink socket-default vici updown
		  filelog { log { path = $d/log
		    flush_line = yes
		    knl = 2 } }
		  plugins { vici { socket = unix://$d/vici } }
		}
	C
	STRONGSWAN_CONF=$d/strongswan.conf onbg "swan-$1" "$1" "$charon"
	within 15 test -S "$d/vici" && swanctl_on "$1" --load-all
}
swanctl_on() {
	local d=$WORK/swan-$1; shift
	SWANCTL_DIR=$d STRONGSWAN_CONF=$d/strongswan.conf timeout 60 swanctl "$@" --uri "unix://$d/vici"
}
swan_end() { end "swan-$1"; cp "$WORK/swan-$1/log" "$WORK/swan.log" 2>/dev/null; return 0; }

# --- strongSwan is the gateway -------------------------------------------------
must "charon starts as gateway" swan gateway <<-C
	connections { test { version = 2
	    proposals = aes256gcm16-prfsha256-x25519
	    pools = inner
	    local { auth = psk
	      id = vpn.example.test }
	    remote { auth = psk }
	    children { net { local_ts = 0.0.0.0/0
	        esp_proposals = aes256gcm16-esn-noesn } }
	} }
	pools { inner { addrs = $POOL_4 } }
	secrets { ike-a { secret = "$SECRET" } }
C
on gateway sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
on laptop mkdir -p /etc/wayfarer/profiles
on laptop sh -c 'echo "datapath = \"xfrm\"" >/etc/wayfarer/client.toml; cat >/etc/wayfarer/profiles/swan.toml; chmod 600 /etc/wayfarer/profiles/swan.toml' <<-C
	server = "$GATEWAY_4"
	remote_id = "vpn.example.test"
	id = "laptop@example.test"
	[auth]
	psk = "$SECRET"
	[tunnel]
	routes = ["10.20.0.0/24"]
	[timers]
	rekey_child = "5s"
C
must "client starts" client_start
check "our client connects to strongSwan" vpn_client up swan --timeout 30s || { tail -30 "$WORK/swan-gateway/log"; finish; }
check "the kernel carries the tunnel" equal "$(client_json datapath.kind)" xfrm
check "it works" reach $INSIDE_4
before=$(client_json children.0.spi_in)
renewed() { [ "$(client_json children.0.spi_in)" != "$before" ]; }
must "probe" tool probe laptop probe $INSIDE_4 "$(inner 4)" every=50ms
check "the Child SA is renewed" within 20 renewed
tool_end probe >/dev/null
check "no packet was lost meanwhile" none_lost probe
uplink_on b; uplink_off a
path_from() { [ "$(client_json local.address)" = "$1" ]; }
check "moves behind a NAT" within 20 path_from 192.168.77.10
check "the tunnel works there" within 10 reach $INSIDE_4
check "disconnects" vpn_client down
check "nothing is left" nothing_of_ours laptop
end client
swan_end gateway
uplink_on a; uplink_off b

# --- strongSwan is the client --------------------------------------------------
must "gateway" server_init
must "configuration" with_kernel
gateway_config tunnel 'native_esp = true'
on gateway sh -c 'cat >>/etc/wayfarer/server.toml' <<-C
	[[psk]]
	id = "*"
	secret = "$SECRET"
C
check "our gateway starts" gateway_up || finish
must "charon starts as client" swan laptop <<-C
	connections { test { version = 2
	    proposals = aes256gcm16-prfsha256-x25519
	    local_addrs = $LAPTOP_4
	    remote_addrs = $GATEWAY_4
	    vips = 0.0.0.0
	    local { auth = psk
	      id = laptop@example.test }
	    remote { auth = psk
	      id = vpn.example.test }
	    children { net { remote_ts = 10.20.0.0/24
	        rekey_time = 6s
	        rand_time = 0
	        life_time = 10m
	        esp_proposals = aes256gcm16-esn } }
	} }
	secrets { ike-a { secret = "$SECRET" } }
C
check "strongSwan connects to our gateway" swanctl_on laptop --initiate --child net --timeout 30 || { tail -20 "$WORK/swan-laptop/log"; finish; }
check "the kernel carries it" equal "$(server_json status datapath.kind)" xfrm
check "it works" reach $INSIDE_4
check "protocol 50, as there is no NAT" equal "$(server_json sessions sessions.0.udp_encapsulation)" false
before=$(server_json sessions sessions.0.children.0.spi_in)
renewed() { [ "$(server_json sessions sessions.0.children.0.spi_in)" != "$before" ]; }
must "probe" tool probe laptop probe $INSIDE_4 every=50ms
check "strongSwan renews the Child SA" within 20 renewed
tool_end probe >/dev/null
check "no packet was lost meanwhile" none_lost probe
check "strongSwan ends the session" swanctl_on laptop --terminate --ike test
check "nothing is left at the gateway" within 5 nothing_of_ours gateway
swan_end laptop
check "the gateway ends in order" end server
finish
