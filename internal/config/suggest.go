package config

import (
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/wayfarer-vpn/wayfarer/internal/spelling"
)

// unknown notes a key that nothing reads, with the key that was probably meant.
func (d *decoder) unknown(path, name string, value any, within reflect.Type) {
	full := joinKey(path, name)
	d.doc.problems.markFailed(full)
	what := fmt.Sprintf("unknown key %q", name)
	if isTable(value) {
		what = fmt.Sprintf("unknown table [%s]", full)
	}
	place := ""
	switch {
	case isTable(value):
	case path == "":
		place = " at the top level"
	case strings.HasSuffix(path, "]"):
		place = " in " + path
	default:
		place = " in [" + path + "]"
	}
	d.doc.problems.add(Problem{
		Line:    d.doc.problems.lineOf(full),
		Message: what + place + d.suggestion(path, name, value, within),
	})
}

// suggestion returns " (did you mean …?)", or nothing when no key comes near.
func (d *decoder) suggestion(path, name string, value any, within reflect.Type) string {
	fields := fieldsOf(within)
	if near, ok := spelling.Nearest(name, slices.Collect(maps.Keys(fields))); ok {
		if isTable(value) {
			return fmt.Sprintf(" (did you mean [%s]?)", joinKey(path, near))
		}
		return fmt.Sprintf(" (did you mean %q?)", near)
	}
	// A right key in the wrong table is as common as a misspelt one.
	for _, place := range tablesWith(d.root, name, "", 0) {
		if place != path && place != "" {
			return fmt.Sprintf(" (%q belongs in [%s])", name, place)
		}
		if place != path {
			return fmt.Sprintf(" (%q belongs at the top, before the first table)", name)
		}
	}
	return ""
}

// tablesWith lists the tables of a configuration type that know a key, sorted.
func tablesWith(t reflect.Type, name, path string, depth int) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	const deepest = 4 // also ends types that contain themselves
	if t.Kind() != reflect.Struct || depth > deepest || reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return nil
	}
	var found []string
	fields := fieldsOf(t)
	if _, ok := fields[name]; ok {
		found = append(found, path)
	}
	for key, index := range fields {
		found = append(found, tablesWith(t.FieldByIndex(index).Type, name, joinKey(path, key), depth+1)...)
	}
	slices.Sort(found)
	return found
}

// isTable says whether a value was written as a table.
func isTable(v any) bool {
	switch v.(type) {
	case map[string]any, []map[string]any:
		return true
	}
	return false
}
