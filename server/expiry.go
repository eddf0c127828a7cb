package server

import (
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/wayfarer-vpn/wayfarer/pki"
)

// How long before their end certificates are warned of. With an authority all
// certificates end that it has issued: every user needs a new profile, which takes time.
const (
	ExpiryNotice    = 30 * 24 * time.Hour
	authorityNotice = 180 * 24 * time.Hour
)

// maxNamed is how many users a warning names.
const maxNamed = 5

func (l *loader) warnOfGateway(own *x509.Certificate) {
	switch {
	case l.now.After(own.NotAfter):
		l.warn("the gateway's certificate has expired on %s: clients will refuse it; renew it with vpn-server cert renew", own.NotAfter.Format(time.DateOnly))
	case own.NotAfter.Sub(l.now) < ExpiryNotice:
		l.warn("the gateway's certificate expires on %s: renew it with vpn-server cert renew", own.NotAfter.Format(time.DateOnly))
	case l.now.Before(own.NotBefore):
		l.warn("the gateway's certificate is not valid before %s: is the clock right?", own.NotBefore.Format(time.DateTime))
	}
}

// warnOfAuthority warns of the end of the gateway's own authority, and of users whose
// certificates end soon or have ended lately.
func (l *loader) warnOfAuthority(a *pki.Authority) {
	const wayOut = "vpn-server init --force makes a new one, and every user needs a new profile"
	switch end := a.Certificate().NotAfter; {
	case l.now.After(end):
		l.warn("the certificate authority has expired on %s, and with it all certificates: %s", end.Format(time.DateOnly), wayOut)
		return
	case end.Sub(l.now) < authorityNotice:
		l.warn("the certificate authority expires on %s, and with it all certificates: %s", end.Format(time.DateOnly), wayOut)
	}
	expiring, err := a.Expiring(l.now, ExpiryNotice)
	if err != nil {
		l.warn("%v", err)
		return
	}
	var users []string
	for _, c := range expiring {
		if c.Kind == pki.KindClient {
			users = append(users, fmt.Sprintf("%s (%s)", c.Name, c.NotAfter.Format(time.DateOnly)))
		}
	}
	if n := len(users); n > maxNamed {
		users = append(users[:maxNamed], fmt.Sprintf("and %d more", n-maxNamed))
	}
	if len(users) > 0 {
		l.warn("certificates of users expire soon, or have expired: %s; vpn-server user add --replace gives new ones", strings.Join(users, ", "))
	}
}
