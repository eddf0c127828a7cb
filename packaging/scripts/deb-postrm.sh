#!/bin/sh
# After the files went. Configuration, keys and users survive a removal; only a purge
# takes them (deb-postrm(5)).
set -e
if [ "$1" = purge ]; then
	@PURGE@
	rmdir --ignore-fail-on-non-empty /etc/wayfarer /var/lib/wayfarer /run/wayfarer 2>/dev/null || true
	rm -f /etc/systemd/system/multi-user.target.wants/@NAME@.service
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
fi
