package fetch

import (
	"encoding/json"
	"net/http"
)

// outage is an error that says nothing about the keys: the issuer could not be reached, or
// something else answered in its place.
type outage struct{ error }

func (e outage) Unwrap() error { return e.error }

// Outage reports whether a fetch failed because the issuer could not be reached: each of
// its requests failed in the transport, was too slow, had the status 408, 429 or 5xx, or was
// answered by something that is not a JSON object, such as the HTML page of a proxy. All
// other errors are answers of the issuer, or faults of this program.
func Outage(err error) bool {
	switch err := err.(type) {
	case outage:
		return true
	case *StatusError:
		return err.Status >= 500 || err.Status == http.StatusTooManyRequests || err.Status == http.StatusRequestTimeout
	case interface{ Unwrap() []error }:
		for _, one := range err.Unwrap() {
			if !Outage(one) {
				return false
			}
		}
		return true
	}
	return false
}

// isObject reports whether a document is a JSON object, as each answer of an issuer is.
func isObject(document []byte) bool {
	var members map[string]json.RawMessage
	return json.Unmarshal(document, &members) == nil && members != nil
}
