# Before the files go: 0 for a removal, 1 for an upgrade. A removal takes off this
# machine's network what only the program that goes can, also after a crash.
if [ "$1" -eq 0 ]; then
	if command -v systemctl >/dev/null 2>&1; then
		if [ -d /run/systemd/system ]; then
			systemctl disable --now @NAME@.service >/dev/null 2>&1 || :
		else
			systemctl disable @NAME@.service >/dev/null 2>&1 || :
		fi
	fi
@RESTORE@
fi
:
