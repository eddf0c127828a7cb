#!/usr/bin/env bash
# moves.sh - what else can happen to a network under traffic: paths that work in one
# direction only, one uplink and another address of the gateway, uplinks that flap, both
# sides moving in the same second, moves in the middle of a rekeying and of connecting.
# The bounds leave room for a loaded machine; what is measured on an idle one is in
# docs/roaming.md (test/bench/roaming.sh).
#
# Most of the time is waiting, so two halves run side by side, each in its own network.
if [ $# = 0 ]; then
	other=$(mktemp)
	bash "$0" exchanges >"$other" 2>&1 &
	bash "$0" paths; status=$?
	wait $! || status=1
	cat "$other"; rm -f "$other"
	exit $status
fi
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lib-events.sh"
events_up

# within_ms LIMIT EVENT: traffic goes on in the same session and over another path,
# LIMIT ms after the last change.
within_ms() {
	local limit=$1 name=$2
	event "$name" || return 1
	echo "gap $GAP ms, back $BACK ms after the last change, $LOST lost, TCP $TCP, same session $SAME, on $WHERE"
	tcp_lives && [ "$SAME" = yes ] && [ "$BACK" -lt "$limit" ]
}
case $1 in
paths)
	check "a path dies on the way out" within_ms 2500 path-failure-out
	check "a path dies on the way back" within_ms 2500 path-failure-in
	check "path_failure is 300 ms" within_ms 2000 path-failure-300ms
	check "the path to one address of the gateway dies, there is one uplink" within_ms 4000 second-address
	check "an uplink flaps beside another" within_ms 3000 flapping
	check "the only uplink flaps" within_ms 3000 flapping-alone;;
exchanges)
	check "both sides move in the same second" within_ms 3000 both-move
	check "a move while a Child SA is renewed" within_ms 3000 move-rekey-child
	check "a move while the IKE SA is renewed" within_ms 3000 move-rekey-ike
	check "a move before IKE_AUTH arrives" within_ms 4000 move-ike-auth
	check "a move before its answer arrives" within_ms 4000 move-ike-auth-answered;;
esac
finish
