	vpn-client down >/dev/null ||
		echo "vpn-client: this machine's own network may not be back; a reboot brings it back"
