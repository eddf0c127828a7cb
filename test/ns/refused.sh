#!/usr/bin/env bash
# refused.sh - who must not come in: a wrong key, another authority, a revoked user, a
# gateway with another name; the programs say so, with exit codes for scripts, and
# install nothing. And a gateway that is not there at all.
. "$(dirname "$0")/lib.sh"
begin
must "gateway" server_init
must "gateway starts" server_start
for user in alice carol; do must "user $user" user_add $user; done
must "user bob" user_add bob --psk
must "client starts" client_start

# refused NAME USER EXITCODE WORDS: "up" ends with the exit code and says the words.
refused() {
	local out status
	out=$(vpn_client up "$2" --timeout 8s 2>&1); status=$?
	vpn_client down >/dev/null 2>&1
	check "$1: exit code" equal "$status" "$3"
	check "$1: the message helps" grep -q -i -E "$4" <<<"$out"
	check "$1: nothing is installed" nothing
}
nothing() {
	[ -z "$(inner 4)$(inner 6)" ] || { echo "there is an inner address"; return 1; }
	if running server; then equal_sessions 0 || return 1; fi
	not reach $INSIDE_4
}

on laptop sed -i 's/^psk = .*/psk = "this is not the secret, but as long"/' /etc/wayfarer/profiles/bob.toml
refused "wrong pre-shared key" bob 4 'did not accept|not accepted'

# A stranger's authority with the same names.
must "another authority" vpn_server init --name vpn.example.test --address $GATEWAY_4 --dir /run/other/etc --state /run/other/state
must "its user" vpn_server --config /run/other/etc/server.toml user add alice
vpn_server --config /run/other/etc/server.toml profile export alice >"$WORK/stranger.toml" 2>/dev/null
must "its profile" vpn_client import --force --name stranger "$WORK/stranger.toml"
refused "another authority" stranger 4 'authority|trust|certificate|accept'
check "the gateway says who and why" grep -q 'AUTHENTICATION_FAILED' <(vpn_server status --json)

must "another name" profile_set alice remote_id '"other.example.test"'
refused "a gateway with another name" alice 4 'vpn.example.test|other.example.test|identity|accept'

must "revocation" vpn_server user revoke carol
refused "a revoked user" carol 4 'revoked|accept'

must "the gateway ends" end server
refused "no gateway" bob 5 'UDP'
must "the client ends" end client
check "no daemon: exit code" equal "$(vpn_client up alice >/dev/null 2>&1; echo $?)" 3
finish
