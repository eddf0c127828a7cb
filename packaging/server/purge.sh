	rm -f /etc/wayfarer/server.toml /run/wayfarer/server.sock /run/wayfarer/server.sock.lock
	# The client package keeps its state below the same directory.
	if [ -d /var/lib/wayfarer ]; then
		find /var/lib/wayfarer -mindepth 1 -maxdepth 1 ! -name client -exec rm -rf {} +
	fi
