package config

import (
	"encoding"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// decoder fills Go values from the tables of a parsed file. It goes on after an
// error, so that one run finds everything.
type decoder struct {
	doc     *Document
	dir     string
	root    reflect.Type
	noFiles bool
}

var (
	secretType   = reflect.TypeFor[Secret]()
	durationType = reflect.TypeFor[time.Duration]()
	timeType     = reflect.TypeFor[time.Time]()
	ownType      = reflect.TypeFor[toml.Unmarshaler]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func (d *decoder) fail(path, format string, args ...any) {
	d.doc.problems.fail(path, format, args...)
}

// table decodes a table into a struct.
func (d *decoder) table(path string, values map[string]any, into reflect.Value) {
	fields := fieldsOf(into.Type())
	for name, value := range values {
		index, known := fields[name]
		if !known {
			d.unknown(path, name, value, into.Type())
			continue
		}
		d.value(joinKey(path, name), value, into.FieldByIndex(index))
	}
}

// value decodes any value into any Go type.
func (d *decoder) value(path string, value any, into reflect.Value) {
	if into.Kind() == reflect.Pointer {
		if into.IsNil() {
			into.Set(reflect.New(into.Type().Elem()))
		}
		d.value(path, value, into.Elem())
		return
	}
	switch {
	case into.Type() == secretType:
		d.secret(path, value, into.Addr().Interface().(*Secret))
	case into.Addr().Type().Implements(ownType):
		if err := into.Addr().Interface().(toml.Unmarshaler).UnmarshalTOML(value); err != nil {
			d.fail(path, "%v", err)
		}
	case into.Type() == timeType:
		t, ok := value.(time.Time)
		if !ok {
			d.mismatch(path, "a date and time without quotes, such as 2026-01-31T12:00:00Z", value)
			return
		}
		into.Set(reflect.ValueOf(t))
	case into.Type() == durationType:
		parsed := Duration(0)
		if err := parsed.UnmarshalTOML(value); err != nil {
			d.fail(path, "%v", err)
			return
		}
		into.SetInt(int64(parsed))
	case into.Addr().Type().Implements(textType):
		d.text(path, value, into)
	default:
		d.plain(path, value, into)
	}
}

// plain decodes into the types that the language brings.
func (d *decoder) plain(path string, value any, into reflect.Value) {
	switch into.Kind() {
	case reflect.Struct:
		t, ok := value.(map[string]any)
		if !ok {
			d.mismatch(path, "a table", value)
			return
		}
		d.table(path, t, into)
	case reflect.Map:
		d.mapping(path, value, into)
	case reflect.Slice:
		d.list(path, value, into)
	case reflect.String:
		s, ok := value.(string)
		if !ok {
			d.mismatch(path, "a string", value)
			return
		}
		into.SetString(s)
	case reflect.Bool:
		b, ok := value.(bool)
		if !ok {
			d.mismatch(path, "true or false", value)
			return
		}
		into.SetBool(b)
	case reflect.Interface:
		if into.NumMethod() != 0 {
			d.fail(path, "cannot be set from a file")
			return
		}
		into.Set(reflect.ValueOf(value))
	default:
		d.number(path, value, into)
	}
}

// number decodes integers and floating-point numbers.
func (d *decoder) number(path string, value any, into reflect.Value) {
	switch {
	case into.CanInt():
		n, ok := value.(int64)
		if !ok {
			d.mismatch(path, "a whole number", value)
			return
		}
		if into.OverflowInt(n) {
			bits := into.Type().Bits()
			d.fail(path, "%d is out of range (%d to %d)", n, math.MinInt64>>(64-bits), math.MaxInt64>>(64-bits))
			return
		}
		into.SetInt(n)
	case into.CanUint():
		n, ok := value.(int64)
		if !ok {
			d.mismatch(path, "a whole number", value)
			return
		}
		if n < 0 || into.OverflowUint(uint64(n)) {
			d.fail(path, "%d is out of range (0 to %d)", n, uint64(math.MaxUint64)>>(64-into.Type().Bits()))
			return
		}
		into.SetUint(uint64(n))
	case into.CanFloat():
		switch n := value.(type) {
		case float64:
			into.SetFloat(n)
		case int64:
			into.SetFloat(float64(n))
		default:
			d.mismatch(path, "a number", value)
		}
	default:
		d.fail(path, "cannot be set from a file")
	}
}

// text decodes a string into a type that parses itself.
func (d *decoder) text(path string, value any, into reflect.Value) {
	example, isAddress := addressExamples[into.Type()]
	s, ok := value.(string)
	if !ok {
		want := "a string"
		if isAddress {
			want += ", " + example
		}
		d.mismatch(path, want, value)
		return
	}
	err := into.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s))
	if err == nil {
		return
	}
	if isAddress {
		d.fail(path, "%q is not %s", s, example)
		return
	}
	d.fail(path, "%v", err)
}

// addressExamples puts the errors of net/netip into words for people.
var addressExamples = map[reflect.Type]string{
	reflect.TypeFor[netip.Addr]():     "an IP address such as 192.0.2.1 or 2001:db8::1",
	reflect.TypeFor[netip.Prefix]():   "a network such as 192.0.2.0/24 or 2001:db8::/64",
	reflect.TypeFor[netip.AddrPort](): "an address with a port such as 192.0.2.1:4500 or [2001:db8::1]:4500",
}

// list decodes an array, or an array of tables. It replaces what was there.
func (d *decoder) list(path string, value any, into reflect.Value) {
	var elements []any
	switch v := value.(type) {
	case []any:
		elements = v
	case []map[string]any:
		for _, t := range v {
			elements = append(elements, t)
		}
	default:
		d.mismatch(path, "a list in brackets", value)
		return
	}
	out := reflect.MakeSlice(into.Type(), len(elements), len(elements))
	for i, element := range elements {
		d.value(indexKey(path, i), element, out.Index(i))
	}
	into.Set(out)
}

// mapping decodes a table with free keys. It adds to what was there.
func (d *decoder) mapping(path string, value any, into reflect.Value) {
	t, ok := value.(map[string]any)
	if !ok || into.Type().Key().Kind() != reflect.String {
		d.mismatch(path, "a table", value)
		return
	}
	if into.IsNil() {
		into.Set(reflect.MakeMap(into.Type()))
	}
	for name, v := range t {
		key := reflect.ValueOf(name).Convert(into.Type().Key())
		element := reflect.New(into.Type().Elem()).Elem()
		if old := into.MapIndex(key); old.IsValid() {
			element.Set(old)
		}
		d.value(joinKey(path, name), v, element)
		into.SetMapIndex(key, element)
	}
}

// secret decodes a Secret, without ever putting its text into an error.
func (d *decoder) secret(path string, value any, into *Secret) {
	s, ok := value.(string)
	if !ok {
		d.mismatch(path, `a string, or "file:/path" to read it from a file`, value)
		return
	}
	warning, err := into.load(s, d.dir, !d.noFiles)
	if err != nil {
		d.fail(path, "%v", err)
		return
	}
	if warning != "" {
		d.doc.warnings = append(d.doc.warnings, fmt.Sprintf("%s:%d: %s: %s", d.doc.name, d.doc.Line(path), path, warning))
	}
}

// mismatch notes that a value has another type than wanted.
func (d *decoder) mismatch(path, want string, got any) {
	hint := ""
	switch got.(type) {
	case string:
		if want == "a whole number" || want == "a number" || want == "true or false" {
			hint = ": leave the quotes out"
		}
	case int64, float64, bool, time.Time:
		if strings.HasPrefix(want, "a string") {
			hint = ": put it in quotes"
		}
	}
	d.fail(path, "must be %s, not %s%s", want, kindOf(got), hint)
}

// kindOf names the TOML type of a value.
func kindOf(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case int64:
		return "a whole number"
	case float64:
		return "a number with a fraction"
	case bool:
		return "true or false"
	case time.Time:
		return "a date or time"
	case map[string]any:
		return "a table"
	case []any, []map[string]any:
		return "a list"
	}
	return fmt.Sprintf("a %T", v)
}

// fieldsOf maps the keys that a struct knows to its fields. Fields of embedded
// structs count as its own.
func fieldsOf(t reflect.Type) map[string][]int {
	fields := map[string][]int{}
	for _, f := range reflect.VisibleFields(t) {
		tag, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		if f.Anonymous && tag == "" && f.Type.Kind() == reflect.Struct {
			continue
		}
		if !f.IsExported() || tag == "-" {
			continue
		}
		if tag == "" {
			tag = strings.ToLower(f.Name)
		}
		if old, taken := fields[tag]; !taken || len(f.Index) < len(old) {
			fields[tag] = f.Index
		}
	}
	return fields
}
