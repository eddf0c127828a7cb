	rm -rf /etc/wayfarer/profiles /var/lib/wayfarer/client
	rm -f /etc/wayfarer/client.toml /run/wayfarer/client.sock /run/wayfarer/client.sock.lock /run/wayfarer/client.successor
