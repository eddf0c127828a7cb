package message

// Find returns the first payload of a Go type, as in Find[*KE](ps).
func Find[T Payload](ps []Payload) (T, bool) {
	for _, p := range ps {
		if t, ok := p.(T); ok {
			return t, true
		}
	}
	var none T
	return none, false
}

// All returns every payload of a Go type, in order, as in All[*Cert](ps).
func All[T Payload](ps []Payload) []T {
	var all []T
	for _, p := range ps {
		if t, ok := p.(T); ok {
			all = append(all, t)
		}
	}
	return all
}

// FindNotify returns the first notify of a type, or nil.
func FindNotify(ps []Payload, kind NotifyType) *Notify {
	for _, p := range ps {
		if n, ok := p.(*Notify); ok && n.Kind == kind {
			return n
		}
	}
	return nil
}

// FindErrorNotify returns the first notify that is an error, or nil.
func FindErrorNotify(ps []Payload) *Notify {
	for _, p := range ps {
		if n, ok := p.(*Notify); ok && n.Kind.IsError() {
			return n
		}
	}
	return nil
}

// Notifies returns all notifies, in order.
func Notifies(ps []Payload) []*Notify { return All[*Notify](ps) }

// FindID returns the first IDr or IDi payload, or nil.
func FindID(ps []Payload, responder bool) *ID {
	for _, p := range ps {
		if id, ok := p.(*ID); ok && id.Responder == responder {
			return id
		}
	}
	return nil
}

// FindTS returns the first TSr or TSi payload, or nil.
func FindTS(ps []Payload, responder bool) *TS {
	for _, p := range ps {
		if ts, ok := p.(*TS); ok && ts.Responder == responder {
			return ts
		}
	}
	return nil
}
