#!/usr/bin/env bash
# setup.sh - make sure that the programs which the tests need are there.
#
#     test/setup.sh [test|kernel|demo|packages]...      (default: test)
#
# On Debian and Ubuntu, as root, missing packages are installed, and it says which.
# Elsewhere, and without root, it says what to install and goes on: the tests that need
# it say SKIP. Only a missing C compiler is fatal, since the race detector needs one.
set -u

# Program, or file, and the package that brings it. One list per purpose.
declare -A needs=(
	[test]="gcc:gcc /usr/include/stdio.h:libc6-dev ip:iproute2 nft:nftables tcpdump:tcpdump ping:iputils-ping curl:curl
		nsenter:util-linux ethtool:ethtool dbus-daemon:dbus groff:groff-base debootstrap:debootstrap dpkg-deb:dpkg rpm:rpm
		/usr/share/ca-certificates:ca-certificates"
	[kernel]="linux.uml:user-mode-linux modprobe:kmod iptables-legacy:iptables ip:iproute2 nft:nftables ping:iputils-ping nsenter:util-linux"
	[demo]="ip:iproute2 nft:nftables ping:iputils-ping curl:curl nsenter:util-linux"
	[packages]="gzip:gzip"
)

have() { case $1 in /*) [ -e "$1" ] ;; *) command -v "$1" >/dev/null 2>&1 ;; esac; }

missing=()
for purpose in "${@:-test}"; do
	for entry in ${needs[$purpose]:?unknown purpose $purpose}; do
		have "${entry%%:*}" && continue
		case " ${missing[*]-} " in *" ${entry##*:} "*) ;; *) missing+=("${entry##*:}") ;; esac
	done
done
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
	echo "setup: missing here, please install what these are called on this system: ${missing[*]}"
elif [ "$(id -u)" -ne 0 ]; then
	echo "setup: missing here: ${missing[*]}"
	echo "setup: install them with: sudo apt-get install -y --no-install-recommends ${missing[*]}"
else
	echo "setup: installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	if ! apt-get update -qq || ! apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; then
		echo "setup: apt-get could not install all of: ${missing[*]}" >&2
	fi
fi
case " $* " in *" test "* | "  ") have gcc || { echo "setup: the race detector needs gcc" >&2; exit 1; } ;; esac
exit 0
