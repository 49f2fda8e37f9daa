// Package keycloak receives the not-before policy that Keycloak pushes.
//
// In Keycloak, an administrator can revoke all tokens of a realm that were issued
// before a moment, and push this policy to the clients that have an admin URL.
// [PushNotBefore] turns it into a rule of package revocation. Keycloak pushes once,
// to one address, so use a store that all replicas follow.
package keycloak

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/bounded"
	"github.com/koreauth/koreauth/internal/door"
	"github.com/koreauth/koreauth/internal/redact"
	"github.com/koreauth/koreauth/internal/strictjson"
	"github.com/koreauth/koreauth/revocation"
)

const (
	maxPush      = 16 << 10     // bytes; a push has less than one
	maxAhead     = 60           // how many seconds ahead the end of a push may be
	lastSecond   = 253402300799 // of the year 9999
	maxSeen      = 1000         // pushes to remember
	storeTimeout = 5 * time.Second
)

// algorithms are those of realm keys. A key verifies only its own.
var algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}

// Config says which pushes are accepted. Issuer and ClientID are required.
type Config struct {
	// Issuer is the URL of the realm, the "iss" of its tokens. The rules are about
	// its tokens.
	Issuer string
	// Keys are the keys of the realm. Use the one that validates its tokens, if you
	// have made one. If Keys is nil, the keys are discovered from Issuer, which must
	// then be an https URL or on loopback.
	Keys koreauth.KeySet
	// ClientID is the client whose admin URL is that of the handler. Pushes to other
	// clients are rejected.
	ClientID string
	// Logger gets a record for each push that is rejected, and for each error of the
	// store. If Logger is nil, nothing is logged. The List that follows the store
	// writes the audit record of the rule.
	Logger *slog.Logger
}

// PushNotBefore returns a handler for Keycloak's pushes of the not-before policy. It
// needs no guard: a push is signed with the key of the realm. Mount it at
// /k_push_not_before below the admin URL of the client:
//
//	mux.Handle("POST /k_push_not_before", keycloak.PushNotBefore(store, keycloak.Config{Issuer: issuer, ClientID: "api-gw"}))
//
// Keycloak revokes the tokens whose "iat" is less than the not-before. The rule for
// that is about all tokens of the issuer, and its IssuedBefore is one second earlier: a
// token that was issued in the second of the not-before is valid, as in Keycloak. A push
// does not say whether the policy is that of the realm or of the client, so both revoke
// the tokens of the whole realm. A not-before of 0 means that there is no policy, and
// appends nothing. A push never takes back an earlier one: to end a rule, lift it with
// revocation.Handler.
//
// A push is valid for the 30 seconds that Keycloak gives it, and its end may be at most
// 60 seconds ahead, so the clocks may differ by 30 seconds. A push that arrives again
// in that time has no further effect in this process.
//
// The answer is 204 if the policy is stored, 400 if the body is not a push to
// ClientID, 401 if the realm did not sign it, and 503 if the store, or the issuer of
// the keys, does not answer.
//
// PushNotBefore panics if s is nil or the Config has a fault.
func PushNotBefore(s revocation.Store, c Config) http.Handler {
	if err := faults(s, c); err != nil {
		panic("keycloak: PushNotBefore: " + err.Error())
	}
	switch keys := c.Keys.(type) {
	case nil:
		c.Keys = &koreauth.RemoteKeySet{Issuer: c.Issuer, Logger: c.Logger}
	case koreauth.StaticKeySet:
		c.Keys = staticKeys{keys}
	}
	return &receiver{store: s, config: c, seen: make(map[[sha256.Size]byte]time.Time)}
}

// faults returns all faults of the arguments of PushNotBefore.
func faults(s revocation.Store, c Config) error {
	var faults []error
	if v := reflect.ValueOf(s); s == nil || v.Kind() == reflect.Pointer && v.IsNil() {
		faults = append(faults, errors.New("the Store is nil: use that of the List, such as the result of revocation.File"))
	}
	if c.ClientID == "" {
		faults = append(faults, errors.New("Config.ClientID is empty: set it to the client whose admin URL is that of the handler"))
	}
	// The same rules apply to the Config of a validator.
	_, err := koreauth.NewValidator(koreauth.Config{Issuer: c.Issuer, Keys: c.Keys, Audience: []string{"-"}})
	return errors.Join(append(faults, err)...)
}

// staticKeys are keys of which those without an ID are tried for an unknown "kid", as
// a Validator does.
type staticKeys struct{ koreauth.StaticKeySet }

func (s staticKeys) Keys(ctx context.Context, kid string, fetch bool) ([]koreauth.Key, error) {
	keys, err := s.StaticKeySet.Keys(ctx, kid, fetch)
	if err == nil {
		return keys, nil
	}
	return slices.DeleteFunc(slices.Clone(s.StaticKeySet), func(k koreauth.Key) bool { return k.ID != "" }), nil
}

// receiver is the result of PushNotBefore.
type receiver struct {
	store  revocation.Store
	config Config

	mu   sync.Mutex                      // guards seen
	seen map[[sha256.Size]byte]time.Time // the payloads of stored pushes, and their ends
}

// refusal is the answer to a push that is not accepted.
type refusal struct {
	status            int
	code, description string
	cause             error // for the log, or nil
}

func (r *refusal) Error() string { return r.description }

func invalid(description string) error {
	return &refusal{http.StatusBadRequest, "invalid_request", description, nil}
}

func (h *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	err := h.receive(r)
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	refused, ok := errors.AsType[*refusal](err)
	if !ok {
		refused = &refusal{http.StatusServiceUnavailable, "temporarily_unavailable", "The store of the rules did not answer: push again", err}
	}
	h.log(r, refused)
	switch refused.status {
	case http.StatusMethodNotAllowed:
		header.Set("Allow", http.MethodPost)
	case http.StatusServiceUnavailable:
		header.Set("Retry-After", "1")
	}
	header.Set("Content-Type", "application/json")
	body, _ := json.Marshal(struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}{refused.code, refused.description})
	w.WriteHeader(refused.status)
	_, _ = w.Write(body) // fails only if the client has disconnected
}

// receive stores what a request pushes. An error that is not a *refusal is that of the
// store.
func (h *receiver) receive(r *http.Request) error {
	if r.Method != http.MethodPost {
		return &refusal{http.StatusMethodNotAllowed, "method_not_allowed", "Keycloak pushes with POST", nil}
	}
	if r.Body == nil {
		return invalid("The body is empty")
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, maxPush+1))
	if err != nil {
		return invalid("The body was not received completely")
	}
	payload, err := h.verify(r.Context(), string(text))
	if err != nil {
		return err
	}
	p, err := readPush(payload)
	if err != nil {
		return err
	}
	now := time.Now() // after the wait for the keys
	if err := p.check(h.config.ClientID, now); err != nil {
		return err
	}
	digest := sha256.Sum256([]byte(payload))
	if p.notBefore == 0 || h.has(digest) {
		return nil
	}
	rule := revocation.Rule{
		Issuer: h.config.Issuer, Everything: true, IssuedBefore: time.Unix(p.notBefore-1, 0),
		Reason: "not-before policy of Keycloak", By: "keycloak",
	}
	if _, err := rule.Complete(now); err != nil {
		return &refusal{http.StatusBadRequest, "invalid_request", "The notBefore is out of range", err}
	}
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	_, err = bounded.Call(ctx, func(ctx context.Context) (revocation.Receipt, error) { return h.store.Append(ctx, rule) })
	if err == nil {
		h.remember(digest, time.Unix(p.expiration, 0), now)
	}
	return err
}

// verify returns the payload of a push that the realm signed.
func (h *receiver) verify(ctx context.Context, text string) (payload string, err error) {
	verifyJWS := door.VerifyJWS.(func(ctx context.Context, keys koreauth.KeySet, algorithms []string, text string) (typ, payload string, err error))
	typ, payload, err := verifyJWS(ctx, h.config.Keys, algorithms, text)
	switch {
	case errors.Is(err, koreauth.ErrUnavailable):
		return "", &refusal{http.StatusServiceUnavailable, "temporarily_unavailable", "The keys of the realm could not be fetched: push again", err}
	case errors.Is(err, koreauth.ErrSignature), errors.Is(err, koreauth.ErrUnknownKey):
		return "", &refusal{http.StatusUnauthorized, "invalid_signature", "The realm did not sign the body", err}
	case err != nil:
		return "", &refusal{http.StatusBadRequest, "invalid_request", "The body is not a signed JWT", err}
	case typ != "JWT":
		return "", invalid("The body is a JWT of another kind")
	}
	return payload, nil
}

// push is the payload of a push, without its "id".
type push struct {
	action, resource      string
	expiration, notBefore int64 // in seconds
}

// readPush reads the payload of a JWT that the realm signed.
func readPush(payload string) (push, error) {
	var p push
	var hasIssuer, hasNotBefore bool
	seconds := func(r *strictjson.Reader) (int64, bool) {
		n, err := strconv.ParseInt(r.Number(), 10, 64)
		return n, err == nil && n >= 0 && n <= lastSecond
	}
	r := strictjson.ReadObject(payload)
	for r.More() {
		switch r.Name() {
		case "iss":
			hasIssuer = true
			r.Skip()
		case "action":
			p.action, _ = r.String()
		case "resource":
			p.resource, _ = r.String()
		case "expiration":
			p.expiration, _ = seconds(r)
		case "notBefore":
			p.notBefore, hasNotBefore = seconds(r)
		default:
			r.Skip()
		}
	}
	switch err := r.End(); {
	case err != nil:
		return push{}, invalid("The payload is not a valid JSON object")
	case hasIssuer:
		// Every token of Keycloak has it, and no push. A client could otherwise make a
		// push of its own, with mappers that add the other members to its tokens.
		return push{}, invalid("The body is a token, not a push")
	case p.action != "PUSH_NOT_BEFORE":
		return push{}, invalid("The action is not PUSH_NOT_BEFORE")
	case !hasNotBefore:
		return push{}, invalid("The notBefore is not a number of seconds")
	}
	return p, nil
}

// check checks whom the push is for, and its time.
func (p push) check(clientID string, now time.Time) error {
	switch {
	case p.resource != clientID:
		return invalid("The resource is not the client of this handler")
	case now.Unix() > p.expiration:
		return invalid("The push has expired, or has no expiration: check both clocks, and push again")
	case p.expiration > now.Unix()+maxAhead:
		return invalid("The expiration is too far ahead: check both clocks")
	}
	return nil
}

// has reports whether the store has a push.
func (h *receiver) has(digest [sha256.Size]byte) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, found := h.seen[digest]
	return found
}

// remember notes that the store has a push, until the end of the push. If that were
// forgotten, a copy of the push would revoke the tokens again after the rule was lifted.
func (h *receiver) remember(digest [sha256.Size]byte, end, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for other, end := range h.seen {
		if now.After(end.Add(time.Second)) {
			delete(h.seen, other)
		}
	}
	if len(h.seen) < maxSeen { // Only the realm can make pushes, so there are few.
		h.seen[digest] = end
	}
}

// log writes a record of a push that was not accepted.
func (h *receiver) log(r *http.Request, refused *refusal) {
	defer func() { _ = recover() }() // of the Logger, or of an error
	level := slog.LevelInfo          // Anybody can send anything.
	if refused.status == http.StatusServiceUnavailable && r.Context().Err() == nil {
		level = slog.LevelError
	}
	if h.config.Logger == nil {
		return
	}
	attrs := redact.Attrs{slog.Int("status", refused.status)}
	attrs.Add("reason", refused.description)
	if refused.cause != nil {
		attrs.Add("cause", redact.Text(refused.cause.Error()))
	}
	h.config.Logger.LogAttrs(r.Context(), level, "koreauth: Keycloak's push rejected", attrs...)
}
