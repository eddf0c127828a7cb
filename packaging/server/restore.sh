	vpn-server cleanup ||
		echo "vpn-server: routes and rules of the gateway may be left; a reboot removes them"
