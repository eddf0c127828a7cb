#!/bin/sh
# After unpacking: "configure" with the version that was there before, empty when the
# package is new (deb-postinst(5)).
set -e
if [ "$1" = abort-remove ] && [ -d /run/systemd/system ] && systemctl is-enabled --quiet @NAME@.service; then
	systemctl start @NAME@.service || true # it was stopped for the removal
fi
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
			@RESTART@
		fi
	fi
fi
@FIRST_STEPS@
