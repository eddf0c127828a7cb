if [ -z "$2" ] && [ ! -e /etc/wayfarer/server.toml ]; then
	echo "vpn-server: make a gateway of this machine with: vpn-server init --name NAME --address ADDRESS"
	echo "vpn-server: then start it with: systemctl enable --now vpn-server"
fi
