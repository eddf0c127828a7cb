# After the files went. rpm knows no purge: configuration, keys and users stay.
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
fi
:
