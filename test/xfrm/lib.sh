# lib.sh - what the tests of the kernel's data path share; sourced. They run inside a
# machine of test/xfrm/vm, in the network of test/ns/lib.sh.
# Each machine gets a copy of /etc, and reading this host's files takes time in here: a
# small /etc makes it quick.
small_etc() {
	local small=/run/small-etc f; mkdir -p $small/alternatives
	for f in passwd group hosts nsswitch.conf protocols services localtime alternatives/awk ld.so.cache iproute2; do
		[ -e "/etc/$f" ] && cp -a "/etc/$f" "$small/$f"
	done
	mount --bind $small /etc
}
small_etc
# A kernel looks for each algorithm and option under several names, with a process for
# each; where processes are dear, all that is used here is loaded at once, and no more.
modules_at_once() {
	grep -q "User Mode Linux" /proc/cpuinfo || return 0
	modprobe -abq authenc authencesn echainiv seqiv cbc ctr gcm ccm ghash_generic chacha20poly1305 chacha_generic poly1305_generic \
		sha512_generic hmac drbg xfrm_user esp4 esp6 tun veth dummy nf_tables iptable_nat xt_nat
	echo >/proc/sys/kernel/modprobe
}
modules_at_once

SLOW=4 # emulated, or one processor as a program among others
. "$(dirname "${BASH_SOURCE[0]}")/../ns/lib.sh"

# nftables: does this kernel have them?
nftables() { nft 'table inet wftry { chain c { type filter hook input priority 0; }; }' 2>/dev/null && nft delete table inet wftry; }

# gateway_config SECTION LINE: add a line to a section of server.toml.
gateway_config() {
	on gateway sed -i "0,/^\[$1\]/s//[$1]\n$2/" /etc/wayfarer/server.toml
	on gateway grep -qF "$2" /etc/wayfarer/server.toml
}
# gateway_up: start the gateway with the kernel's path. Where the kernel has no
# nf_tables the administrator does what the gateway would do to the network.
gateway_up() {
	server_start || return 1
	nftables && return
	on gateway sh -c "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
		ip link set wfs0 up && ip route replace $POOL_4 dev wfs0 && ip -6 route replace $POOL_6 dev wfs0"
}
# with_kernel: both programs are told to use the kernel.
with_kernel() {
	gateway_config tunnel 'datapath = "xfrm"' || return 1
	nftables || gateway_config network 'manage = false' || return 1
	on laptop sh -c 'mkdir -p /etc/wayfarer; echo "datapath = \"xfrm\"" >/etc/wayfarer/client.toml'
}
# states MACHINE, policies MACHINE: how many of ours.
states() { on "$1" ip xfrm state | grep -c 'reqid 14[0-9]*'; }
policies() { on "$1" ip xfrm policy | grep -c 'reqid 14[0-9]*'; }
nothing_of_ours() { equal "$(states "$1") states, $(policies "$1") policies" "0 states, 0 policies"; }
kind_is() { equal "$(client_json datapath.kind) $(server_json status datapath.kind)" "$1 $1"; }
# none_lost NAME: the probe has lost nothing.
none_lost() { equal "$(figure "$1" lost) of $(figure "$1" sent)" "0 of $(figure "$1" sent)"; }
