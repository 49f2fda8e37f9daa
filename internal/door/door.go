// Package door lets the other packages of this module use parts of package
// koreauth that are not exported. Package koreauth sets the variables when it is
// initialized; they have type any, because this package cannot import it.
package door

var (
	// Validate validates a token as koreauth.Validator.Validate does, but accepts
	// tokens that are bound to a key, for a Sender to confirm, and returns shared
	// claims, which must not be changed. r may be nil. Its type is
	//
	//	func(ctx context.Context, v *koreauth.Validator, r *http.Request, token string) (*koreauth.Claims, error)
	Validate any

	// Judge returns a function that judges the claims of an introspection response as those
	// of a token of one issuer. Its type is
	//
	//	func(issuer string, audience, clients []string, leeway time.Duration) func(c *koreauth.Claims, now time.Time) error
	Judge any

	// Require checks claims with the MaxAge, ClientIDs and Require of the Config of their
	// issuer, which must be one of the Validator's, and rejects those that are bound in an
	// unknown way. Its type is
	//
	//	func(v *koreauth.Validator, c *koreauth.Claims) error
	Require any

	// Clone returns a deep copy of claims. Its type is
	//
	//	func(c *koreauth.Claims) *koreauth.Claims
	Clone any

	// Size returns how many bytes of memory claims take at most, without their payload. Its
	// type is
	//
	//	func(c *koreauth.Claims) int
	Size any

	// VerifySignature verifies header, signature, "iss", "exp", "nbf" and "typ" of a token,
	// and nothing else. The claims are shared and must not be changed. Its type is
	//
	//	func(ctx context.Context, v *koreauth.Validator, token string) (*koreauth.Claims, error)
	VerifySignature any

	// VerifyJWS verifies the signature of a compact JWS with a key set. It returns
	// the "typ" of the header, or "JWT" if the header has none, and the payload. It
	// checks neither. The error has a class. Its type is
	//
	//	func(ctx context.Context, keys koreauth.KeySet, algorithms []string, text string) (typ, payload string, err error)
	VerifyJWS any
)

// all are the functions of AddShared. They return nil for a validator of another type.
var all []func(validator any) (validate any)

// AddShared adds a package's TokenValidators, of type V. shared returns a function that
// validates as v.Validate does, but returns shared claims, which must not be changed. Its
// type is
//
//	func(ctx context.Context, token string) (*koreauth.Claims, error)
func AddShared[V any](shared func(v V) (validate any)) {
	all = append(all, func(validator any) any {
		if v, ok := validator.(V); ok {
			return shared(v)
		}
		return nil
	})
}

// Shared returns the function for a TokenValidator that AddShared describes, or nil.
func Shared(validator any) (validate any) {
	for _, find := range all {
		if validate := find(validator); validate != nil {
			return validate
		}
	}
	return nil
}
