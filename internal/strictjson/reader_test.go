package strictjson_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/koreauth/koreauth/internal/strictjson"
)

// nested returns a JSON object of that depth.
func nested(depth int, opening, closing string) string {
	return `{"a":` + strings.Repeat(opening, depth-1) + "1" + strings.Repeat(closing, depth-1) + `}`
}

// read reads the one member of an object with each method of the Reader.
func read(text string) map[string]error {
	result := make(map[string]error)
	for name, value := range map[string]func(*strictjson.Reader){
		"Skip":        func(r *strictjson.Reader) { r.Skip() },
		"Raw":         func(r *strictjson.Reader) { r.Raw() },
		"String":      func(r *strictjson.Reader) { _, _ = r.String() },
		"Strings":     func(r *strictjson.Reader) { strictjson.Strings[string](r) },
		"Number":      func(r *strictjson.Reader) { r.Number() },
		"OneOrMany":   func(r *strictjson.Reader) { strictjson.OneOrMany(r) },
		"Words":       func(r *strictjson.Reader) { strictjson.Words(r) },
		"NumericDate": func(r *strictjson.Reader) { strictjson.NumericDate(r) },
		"Enter": func(r *strictjson.Reader) {
			var enter func()
			enter = func() {
				if c := r.Peek(); c != '[' && c != '{' {
					r.Skip()
					return
				}
				for r.Enter(); r.More(); {
					enter()
				}
			}
			enter()
		},
	} {
		r := strictjson.ReadObject(text)
		for r.More() {
			value(r)
		}
		result[name] = r.End()
	}
	return result
}

func TestReader_Depth(t *testing.T) {
	for _, brackets := range [][2]string{{"[", "]"}, {`{"a":`, "}"}} {
		for name, err := range read(nested(64, brackets[0], brackets[1])) {
			assert.NoError(t, err, "%s at 64 levels of %s", name, brackets[0])
		}
		for _, depth := range []int{65, 66, 1000, 8000} {
			for name, err := range read(nested(depth, brackets[0], brackets[1])) {
				assert.ErrorContains(t, err, "too deep", "%s at %d levels of %s", name, depth, brackets[0])
			}
		}
	}
	for name, err := range read(`{"a":` + strings.Repeat("[", 16<<10)) {
		assert.ErrorContains(t, err, "too deep", "%s of brackets that are not closed", name)
	}
	for name, err := range read(`{"a":[` + strings.Repeat(`[[]],`, 3000) + `[]]}`) {
		assert.NoError(t, err, "%s: siblings do not add up", name)
	}
}

// The work for a text that is nested too deeply does not grow with its depth.
func TestReader_DepthIsCheap(t *testing.T) {
	deep := nested(8000, "[", "]")
	allocations := testing.AllocsPerRun(100, func() {
		r := strictjson.ReadObject(deep)
		for r.More() {
			r.Skip()
		}
		_ = r.End()
	})
	assert.LessOrEqual(t, allocations, 10.0)
}

func TestReader_Raw(t *testing.T) {
	for _, value := range []string{`1`, `-0.5e+7`, `"a\u0041"`, `[1, [ ]]`, `{"b" : {}}`, `null`, `true`, `false`} {
		r := strictjson.ReadObject("{ \"a\" :\n\t" + value + " , \"b\":1}")
		assert.True(t, r.More())
		assert.Equal(t, value, r.Raw())
		assert.True(t, r.More())
		assert.Equal(t, "1", r.Raw())
		assert.False(t, r.More())
		assert.NoError(t, r.End())
	}
	for _, value := range []string{``, `x`, `[1`, `{"a":1,"a":2}`, `"`} {
		r := strictjson.ReadObject(`{"a":` + value + `}`)
		assert.True(t, r.More())
		assert.Empty(t, r.Raw(), value)
		for r.More() {
			r.Skip()
		}
		assert.Error(t, r.End(), value)
	}
}
