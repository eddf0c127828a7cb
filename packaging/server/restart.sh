			systemctl try-restart vpn-server.service || true
