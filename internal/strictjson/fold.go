package strictjson

import (
	"cmp"
	"encoding/json"
	"reflect"
	"strings"
)

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// AmbiguousField reports whether encoding/json, which ignores the case of names,
// would decode two members of an object in data into one struct field of t. It
// returns the name of the field. Data must be valid JSON.
func AmbiguousField(data []byte, t reflect.Type) (field string, ambiguous bool) {
	for t != nil && t.Kind() == reflect.Pointer && !t.Implements(unmarshaler) {
		t = t.Elem()
	}
	if t == nil || t.Implements(unmarshaler) || reflect.PointerTo(t).Implements(unmarshaler) {
		return "", false
	}
	switch t.Kind() {
	case reflect.Struct:
		var members map[string]json.RawMessage
		if json.Unmarshal(data, &members) != nil {
			return "", false // not an object: json.Unmarshal reports it
		}
		fields := make(map[string]reflect.StructField)
		for _, field := range reflect.VisibleFields(t) {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name == "-" || !field.IsExported() || field.Anonymous && name == "" {
				continue // VisibleFields lists the fields of an embedded struct too.
			}
			fields[cmp.Or(name, field.Name)] = field
		}
		for name, field := range fields {
			found := 0
			for member, value := range members {
				if _, otherField := fields[member]; member != name && (otherField || !strings.EqualFold(member, name)) {
					continue // encoding/json prefers the exact name.
				}
				if found++; found > 1 {
					return field.Name, true
				}
				if field, ok := AmbiguousField(value, field.Type); ok {
					return field, true
				}
			}
		}
	case reflect.Map:
		var members map[string]json.RawMessage
		_ = json.Unmarshal(data, &members) // as above
		for _, value := range members {
			if field, ok := AmbiguousField(value, t.Elem()); ok {
				return field, true
			}
		}
	case reflect.Slice, reflect.Array:
		var elements []json.RawMessage
		_ = json.Unmarshal(data, &elements) // as above
		for _, value := range elements {
			if field, ok := AmbiguousField(value, t.Elem()); ok {
				return field, true
			}
		}
	}
	return "", false
}
