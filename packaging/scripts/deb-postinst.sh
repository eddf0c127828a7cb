#!/bin/sh
# After unpacking: "configure" with the version that was there before, empty when the
# package is new (deb-postinst(5)).
set -e
[ "$1" = configure ] || exit 0

# Without a running systemd (a container, an image being built) there is nothing to
# reload or restart, but the unit is still enabled for the next boot.
if command -v systemctl >/dev/null 2>&1; then
	if [ -z "$2" ]; then
		systemctl preset @NAME@.service >/dev/null 2>&1 || true
	fi
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload || true
		if [ -n "$2" ]; then
			# Not fatal: the new version may find the old configuration wanting, and
			# the log then says so.
			systemctl try-restart @NAME@.service || true
		fi
	fi
fi
@FIRST_STEPS@
