#!/bin/sh
# Makes the files beside it anew, with strongSwan's pki.
set -e
cd "$(dirname "$0")"
dates='--dateform %Y-%m-%d --not-before 2025-01-01 --not-after 2075-01-01'
for type in rsa ecdsa ed25519; do
	for name in ca server client; do pki --gen -t $type $([ $type = rsa ] && echo -s 2048; [ $type = ecdsa ] && echo -s 384) --outform pem >$name-$type.key; done
	pki --self --ca --in ca-$type.key --dn "C=FI, O=Roaming Lab, CN=ca-$type" $dates --outform pem >ca-$type.pem
	issue="pki --issue --type priv --cacert ca-$type.pem --cakey ca-$type.key $dates --outform pem"
	$issue --in server-$type.key --dn "C=FI, O=Roaming Lab, CN=server-$type" \
		--san vpn.example.test --san 192.0.2.1 --flag serverAuth --flag ikeIntermediate >server-$type.pem
	$issue --in client-$type.key --dn "C=FI, O=Roaming Lab, CN=client-$type" \
		--san laptop@example.test --flag clientAuth >client-$type.pem
	serial=$(pki --print --in client-$type.pem | sed -n 's/.*serial: *//p' | tr -d :)
	pki --signcrl --cacert ca-$type.pem --cakey ca-$type.key --reason key-compromise --serial $serial \
		--dateform %Y-%m-%d --this-update 2025-01-01 --next-update 2075-01-01 --outform pem >revoked-$type.crl
done
