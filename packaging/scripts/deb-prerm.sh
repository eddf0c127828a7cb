#!/bin/sh
# Before the files go. An upgrade keeps the daemon running until the new one is there. A
# removal leaves the unit enabled, so that installing again brings back what was.
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
	systemctl stop @NAME@.service || true
fi
