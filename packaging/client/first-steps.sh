if [ -z "$2" ]; then
	echo "vpn-client: start it with: systemctl enable --now vpn-client"
	echo "vpn-client: then connect with: vpn-client import PROFILE.toml && vpn-client up PROFILE"
fi
