#!/usr/bin/env bash
# demo.sh - a gateway, a user and a laptop behind a NAT, on one machine; `make demo`
# runs it. Everything happens in network namespaces that are gone afterwards, also when
# it is interrupted.
set -u
cd "$(dirname "$0")/.." || exit 1
[ "$(id -u)" = 0 ] || { echo "the demonstration makes network namespaces, which needs root: sudo make demo" >&2; exit 1; }
for program in ip nft ping nsenter curl; do
	command -v $program >/dev/null || { echo "$program is missing: test/setup.sh demo installs what is needed" >&2; exit 1; }
done
[ -c /dev/net/tun ] || { echo "/dev/net/tun is missing: modprobe tun, or give it to this container" >&2; exit 1; }
TEST=demo PREFIX=wfdemo$$
. test/ns/lib.sh
for program in vpn-server vpn-client; do
	[ -x "$BIN/$program" ] || { echo "$BIN/$program is missing: make build" >&2; exit 1; }
done
trap 'rm -rf "${SCRATCH:-}"' EXIT
trap 'exit 130' INT; trap 'exit 143' TERM HUP
SCRATCH=$(mktemp -d)
NSTOOL=$SCRATCH/nstool
CGO_ENABLED=0 go build -o "$NSTOOL" ./test/ns/nstool || exit 1

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' blue=$'\e[36m' plain=$'\e[0m'; else bold='' dim='' green='' blue='' plain=''; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
note() { printf '%s# %s%s\n' "$dim" "$*" "$plain"; }
prompt() { printf '%s%s#%s %s\n' "$blue" "$1" "$plain" "$2"; }
oops() { echo "demo: $*" >&2; show_logs >&2; exit 1; }
# show MACHINE COMMAND...: show the command as its user types it, run it there.
show() {
	local machine=$1; shift
	prompt "$machine" "$*"
	on "$machine" env PATH="$BIN:$PATH" "$@" || oops "this should have worked: $*"
}
began=$SECONDS

network_up || { echo "demo: cannot make the network; see above" >&2; exit 1; }
uplink_on b; uplink_off a

say "A gateway and a laptop"
cat <<-'P'
	  laptop --- home router (NAT) --- internet --- gateway --- 10.20.0.2, a server inside
	  192.168.77.10      192.0.2.130                203.0.113.10
P

say "1. One command makes a gateway, one runs it"
show gateway vpn-server init --name vpn.example.org --address $GATEWAY_4 --pool4 $POOL_4 --pool6 $POOL_6 --dns $INSIDE_4
prompt gateway "vpn-server run &"
server_start || oops "the gateway does not start"

say "2. One lets a user in, one hands out the profile"
show gateway vpn-server user add alice
prompt gateway "vpn-server profile export alice --output alice.toml"
vpn_server profile export alice --output "$WORK/alice.toml" || oops "there is no profile"
note "alice.toml goes to the laptop: one file of $(wc -l <"$WORK/alice.toml") lines with everything in it"

say "3. The laptop takes it in and connects"
note "before: $FAR_4 is a host of the internet that only the gateway can reach"
reach $FAR_4 && oops "$FAR_4 answers without the tunnel"
prompt laptop "vpn-client run &   ${dim}# with the package installed, systemd does this${plain}"
client_start || oops "the client does not start"
prompt laptop "vpn-client import alice.toml && vpn-client up alice"
vpn_client import "$WORK/alice.toml" && vpn_client up alice --timeout 20s || oops "not connected"
show laptop ping -n -c 3 -i 0.2 $FAR_4
show laptop ping -n -q -c 3 -i 0.2 $INSIDE_6

say "4. A download through the tunnel"
prompt laptop "curl -O http://$FAR_4:8080/file"
read -r octets seconds rate <<<"$(on laptop curl -s -S -o /dev/null -w '%{size_download} %{time_total} %{speed_download}' "http://$FAR_4:8080/?size=200000000")"
[ "$octets" = 200000000 ] || oops "the download broke after ${octets:-no} octets"
awk -v o="$octets" -v s="$seconds" -v r="$rate" 'BEGIN {printf "%d MB in %.1f s: %.0f MB/s, %.0f Mbit/s\n", o / 1e6, s, r / 1e6, r * 8 / 1e6}'

say "5. What both sides say"
show gateway vpn-server status
show gateway vpn-server sessions
show laptop vpn-client status

say "6. The laptop leaves home: another network while a download runs"
# 40 MB at 8 MB/s: the network changes in the midst of it.
prompt laptop "curl --limit-rate 8M -O http://$FAR_4:8080/file &"
onbg download laptop curl -s -S --limit-rate 8M -o /dev/null -w '%{size_download}' "http://$FAR_4:8080/?size=40000000"
sleep 1
before=$(client_json local.address)
uplink_on a; sleep 0.5; uplink_off b
note "another uplink has come, with another address; the cable to the router is pulled"
within 30 not running download || oops "the download does not end"
after=$(client_json local.address)
[ "$(cat "$WORK/download.log")" = 40000000 ] || oops "the download broke: $(cat "$WORK/download.log")"
printf '%sthe same TCP connection has delivered all 40000000 octets; the tunnel has moved from %s to %s%s\n' "$green" "$before" "$after" "$plain"

say "7. And leaves"
show laptop vpn-client down
end client && end server || oops "they do not end"
say "Done in $((SECONDS - began)) s; nothing is left on this machine. README.md says how to do it for real."
