# After unpacking: 1 when the package is new, 2 or more for an upgrade.
if command -v systemctl >/dev/null 2>&1; then
	if [ "$1" -eq 1 ]; then
		systemctl preset @NAME@.service >/dev/null 2>&1 || :
	fi
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload || :
		if [ "$1" -ge 2 ]; then
			@RESTART@
		fi
	fi
fi
:
