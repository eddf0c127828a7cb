#!/bin/sh
# Before the files go. An upgrade keeps the daemon running until the new one is there. A
# removal leaves the unit enabled, so that installing again brings back what was; it takes
# off this machine's network what only the program that goes can, also after a crash.
set -e
[ "$1" = remove ] || exit 0
if [ -d /run/systemd/system ]; then
	systemctl stop @NAME@.service || true
fi
@RESTORE@
