# Before the files go: 0 for a removal, 1 for an upgrade.
if [ "$1" -eq 0 ] && command -v systemctl >/dev/null 2>&1; then
	if [ -d /run/systemd/system ]; then
		systemctl disable --now @NAME@.service >/dev/null 2>&1 || :
	else
		systemctl disable @NAME@.service >/dev/null 2>&1 || :
	fi
fi
:
