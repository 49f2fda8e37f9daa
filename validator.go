package koreauth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha512" // for the algorithms below
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"
)

// maxToken is the size of the largest token that is looked at.
const maxToken = 16 << 10

// TokenValidator judges a token. [Validator] is one; a test may bring its own.
type TokenValidator interface {
	// Validate returns the claims of a good token, which are then the
	// caller's, or an error of one of the classes. An error of no class, or
	// neither claims nor an error, counts as ErrUnavailable.
	Validate(ctx context.Context, token string) (*Claims, error)
}

// Config says which tokens are good. Issuer and Audience are required; the
// zero value of every other field is the strict choice.
type Config struct {
	// Issuer is what "iss" must be, to the letter. If neither JWKSURL nor Keys
	// is set it must be an https URL, at which the keys are discovered.
	Issuer string
	// Audience is whom tokens may be meant for: "aud" must name one of these.
	// Name your API, not a client: the ID tokens of many issuers have the
	// client as their audience, and nothing else that tells them apart.
	Audience []string
	// JWKSURL is where the issuer's keys are. Empty: discovered from Issuer
	// (OpenID Connect Discovery 1.0 §4, else RFC 8414 §3).
	JWKSURL string
	// Keys are the issuer's keys, instead of fetching them; JWKSURL and
	// HTTPClient are then to be left empty. A [RemoteKeySet] of your own goes
	// here if its intervals do not suit.
	Keys KeySet
	// Algorithms are the accepted values of "alg" (RFC 7518 §3.1, RFC 8037
	// §3.1), of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512
	// and EdDSA (Ed25519). Empty: RS256 alone.
	Algorithms []string
	// ClientIDs are the clients whose tokens are accepted. Empty: any.
	ClientIDs []string
	// Leeway is the clock difference to tolerate. Zero means none.
	Leeway time.Duration
	// MaxAge is the time since "iat" after which a token is too old, whatever
	// its "exp". Zero: no limit, and "iat" is not looked at.
	MaxAge time.Duration
	// CacheSize is how many verified tokens are remembered, by their SHA-256, so
	// that one seen before costs no signature, in entries of at most 4 KiB (a
	// larger one counts as several). Each is judged anew every time, by the clock
	// and by the issuer's keys. Zero: 10,000, so at most 40 MB; negative: none.
	CacheSize int
	// HTTPClient fetches the keys; nil means one on http.DefaultTransport.
	HTTPClient *http.Client
	// DangerouslyAllowHTTP allows to fetch keys over http from any host, which
	// lets whoever is on the network between forge any token. Unused if Keys is
	// set: a [RemoteKeySet] has its own.
	DangerouslyAllowHTTP bool
	// Logger is told of key refreshes that failed behind a request's back. Nil
	// means silence. Unused if Keys is set: a [RemoteKeySet] has its own. Refusals
	// are logged by [Options].Logger.
	Logger *slog.Logger
}

// Validator judges tokens by a [Config]. Make it with [NewValidator]; the zero
// Validator accepts nothing. It may be used by many goroutines at once.
type Validator struct {
	issuer     string
	audience   []string
	keys       KeySet
	algorithms map[string]algorithm
	clients    []string
	leeway     time.Duration
	maxAge     time.Duration
	memory     *memory
}

// NewValidator returns a validator, or every fault of the Config at once,
// joined. It makes no request: the first token does, or [Validator.Ready].
func NewValidator(c Config) (*Validator, error) {
	v := &Validator{
		issuer:     c.Issuer,
		audience:   slices.Clone(c.Audience),
		algorithms: make(map[string]algorithm),
		clients:    slices.Clone(c.ClientIDs),
		leeway:     c.Leeway,
		maxAge:     c.MaxAge,
		memory:     newMemory(c.CacheSize),
	}
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf("koreauth: "+format, args...))
		}
	}
	fault(c.Issuer == "", `Config.Issuer is empty: set it to the "iss" of your tokens, such as https://keycloak.example.com/realms/KORE-CIDP`)
	fault(len(c.Audience) == 0, `Config.Audience is empty: set it to the "aud" that tokens for this API carry, such as api-gw`)
	fault(slices.Contains(c.Audience, ""), "Config.Audience has an empty name: remove it")
	fault(slices.Contains(c.ClientIDs, ""), "Config.ClientIDs has an empty name: remove it; no ClientIDs at all accept any client")
	fault(c.Leeway < 0, "Config.Leeway is negative: set zero for none, or more")
	fault(c.MaxAge < 0, "Config.MaxAge is negative: set zero for no limit, or more")
	names := c.Algorithms
	if len(names) == 0 {
		names = []string{"RS256"}
	}
	for _, name := range names {
		alg, known := algorithms[name]
		fault(!known, "Config.Algorithms has %q, which no public key can verify: use RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 or EdDSA", name)
		v.algorithms[name] = alg
	}
	var keyFaults []error
	v.keys, keyFaults = c.keySet()
	if faults = append(faults, keyFaults...); len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return v, nil
}

// keySet returns the KeySet that the Config stands for, and its faults.
func (c *Config) keySet() (KeySet, []error) {
	var faults []error
	if c.Keys != nil && c.JWKSURL != "" {
		faults = append(faults, errors.New("koreauth: Config has Keys and JWKSURL: set one of them"))
	}
	if c.Keys != nil && c.HTTPClient != nil {
		faults = append(faults, errors.New("koreauth: Config has Keys and HTTPClient: give the client to the key set (RemoteKeySet.HTTPClient)"))
	}
	switch keys := c.Keys.(type) {
	case nil:
		if c.Issuer == "" && c.JWKSURL == "" {
			return nil, faults // The empty Issuer is told of already.
		}
		remote := &RemoteKeySet{
			URL: c.JWKSURL, Issuer: c.Issuer, HTTPClient: c.HTTPClient,
			DangerouslyAllowHTTP: c.DangerouslyAllowHTTP, Logger: c.Logger,
		}
		return remote, append(faults, remote.faults()...)
	case *RemoteKeySet:
		if keys == nil {
			return nil, append(faults, errors.New("koreauth: Config.Keys is a nil *RemoteKeySet: make one with &RemoteKeySet{URL: …}"))
		}
		return keys, append(faults, keys.faults()...)
	case StaticKeySet:
		if len(keys) == 0 {
			faults = append(faults, errors.New("koreauth: Config.Keys is an empty StaticKeySet: give it the issuer's keys, from ParseKeys for example"))
		}
		for i, key := range keys {
			if key.Public == nil {
				faults = append(faults, fmt.Errorf("koreauth: Config.Keys: key %d has no Public", i))
			}
		}
		index := newKeyIndex(keys)
		return &index, faults
	default:
		return keys, faults
	}
}

// Ready returns nil if there are keys, fetching them if there are none: call it
// to warm up before the first request, and as a readiness probe. The error is
// ErrUnavailable.
func (v *Validator) Ready(ctx context.Context) error {
	if v.keys == nil {
		return unavailable(errUnmade, 0)
	}
	keys, err := v.keys.Keys(ctx, "", true)
	switch {
	case err == nil && len(keys) == 0, errors.Is(err, ErrUnknownKey):
		return unavailable(errors.New("the key set has no keys"), 0)
	case err != nil && !errors.Is(err, ErrUnavailable):
		return unavailable(err, 0)
	}
	return err
}

var errUnmade = errors.New("the Validator was not made by NewValidator")

// keysError is the refusal when a key set has no answer.
func keysError(err error) *Error {
	if errors.Is(err, ErrUnknownKey) {
		return &Error{Class: ErrInvalidToken, Reason: err}
	}
	var found *Error
	if errors.As(err, &found) && found != nil && errors.Is(found, ErrUnavailable) {
		return &Error{Class: ErrUnavailable, Reason: err, RetryAfter: found.RetryAfter}
	}
	return unavailable(err, 0)
}

// Validate returns the claims of a good token. The error is an [*Error] of
// class [ErrInvalidToken], with the reason, or [ErrUnavailable]; then the
// claims are nil.
func (v *Validator) Validate(ctx context.Context, token string) (*Claims, error) {
	claims, err := v.judge(ctx, token, false)
	if err != nil {
		return nil, err
	}
	return claims.clone(), nil
}

// judge is Validate, but that its claims may be shared: the caller must not
// change them, nor let anybody else. If the token was carried by a request, what
// is no b64token (RFC 6750 §2.1) is ErrBadRequest; one that is remembered as good
// needs no such look.
func (v *Validator) judge(ctx context.Context, token string, carried bool) (*Claims, error) {
	if v.keys == nil {
		return nil, unavailable(errUnmade, 0)
	}
	t := parsedTokens.Get().(*parsedToken)
	defer t.release()
	reason := t.split(token)
	if reason == nil {
		t.header = v.memory.headers.recall(t.encodedHeader)
		t.seen = v.memory.recall(t)
	}
	if reason == nil && t.seen == nil {
		reason = t.decode()
	}
	// Three segments of base64url are one b64token: no need to look twice.
	if reason != nil && carried && !isToken68(token) {
		return nil, errNotToken68
	}
	if ctx.Err() != nil {
		return nil, unavailable(context.Cause(ctx), 0)
	}
	if reason == nil {
		reason = v.judgeSplit(ctx, t)
	}
	if reason == nil {
		return t.claims, nil
	}
	refusal, ok := reason.(*Error)
	if !ok {
		refusal = &Error{Class: ErrInvalidToken, Reason: reason}
	}
	if t.header != nil {
		refusal.KeyID = t.header.kid
	}
	if t.claims != nil {
		refusal.Issuer, refusal.ClientID = t.claims.Issuer, t.claims.ClientID
	}
	refusal.verified = t.verified
	return nil, refusal
}

// judgeSplit judges a token that has three segments. This is the one place
// where verified bytes become claims: by a signature, or by the memory of one.
func (v *Validator) judgeSplit(ctx context.Context, t *parsedToken) error {
	if t.seen != nil {
		t.claims = &t.seen.claims
		now := time.Now()
		err := v.verify(ctx, t, now)
		if err == nil {
			err = v.check(t.claims, now)
		}
		if errors.Is(err, ErrExpired) || errors.Is(err, ErrUnknownKey) || err == errForgotten {
			v.memory.forget(t)
		}
		if err != errForgotten {
			return err
		}
		t.seen = nil
		if err := t.decode(); err != nil {
			return err
		}
	}
	if err := v.parse(t); err != nil {
		return err
	}
	t.claims.judged.kid = t.header.kid
	if err := v.verify(ctx, t, time.Now()); err != nil {
		return err
	}
	if err := v.check(t.claims, time.Now()); err != nil {
		return err
	}
	t.fresh.key = t.key
	v.memory.remember(t)
	return nil
}

var errForgotten = errors.New("koreauth: the key that verified a remembered token is gone")

// verify holds the signature against the issuer's keys, or what is remembered
// of it: then the key that made it must still be the issuer's. When it returns
// nil, the claims are the issuer's.
func (v *Validator) verify(ctx context.Context, t *parsedToken, now time.Time) error {
	keys, err := v.keys.Keys(ctx, t.header.kid, v.worthFetching(t, now))
	if err != nil {
		return keysError(err)
	}
	fitting := 0
	for i := range keys {
		key := &keys[i]
		if !t.header.takes(key) {
			continue
		}
		// One "kid" may name several keys (RFC 7517 §4.5).
		if fitting++; t.verified {
			continue
		}
		if t.seen != nil {
			t.verified = t.seen.key.equal(key)
		} else {
			t.verified = t.header.algorithm.verify(key.Public, t)
		}
		if t.verified {
			t.key = *key
		}
	}
	switch {
	case fitting > 1 && t.header.kid == "":
		t.verified = false
		return fmt.Errorf(`%w: no "kid", and more than one key fits`, ErrUnknownKey)
	case t.seen != nil && !t.verified:
		return errForgotten
	case fitting == 0:
		return ErrUnknownKey
	case !t.verified:
		return ErrSignature
	}
	if t.payloadErr != nil {
		return fmt.Errorf("%w: payload: %w", ErrMalformed, t.payloadErr)
	}
	return nil
}

// worthFetching reports whether a token, if a key for it were fetched, could be
// good. It keeps those that cannot from making us ask the issuer.
func (v *Validator) worthFetching(t *parsedToken, now time.Time) bool {
	return t.payloadErr == nil && v.checkIssuer(t.claims) == nil && v.checkExpiry(t.claims, now) == nil
}

// check judges the claims of a token whose signature holds.
func (v *Validator) check(c *Claims, now time.Time) error {
	if err := v.checkIssuer(c); err != nil {
		return err
	}
	if err := v.checkExpiry(c, now); err != nil {
		return err
	}
	switch {
	case c.judged.oddNotBefore || now.Before(c.NotBefore.Add(-v.leeway)):
		return ErrNotYetValid
	case v.maxAge > 0 && (c.IssuedAt.IsZero() || now.Add(v.leeway).Before(c.IssuedAt) || !now.Before(c.IssuedAt.Add(v.maxAge).Add(v.leeway))):
		return ErrTooOld
	// Keycloak signs ID and refresh tokens with the same keys as access tokens.
	case c.judged.hasType && c.judged.typ != "Bearer":
		return fmt.Errorf(`%w: payload "typ" is not Bearer`, ErrTokenType)
	case len(v.clients) > 0 && !slices.Contains(v.clients, c.ClientID):
		return ErrClient
	case c.judged.bound:
		return ErrBinding
	}
	return nil
}

func (v *Validator) checkIssuer(c *Claims) error {
	if c.Issuer != v.issuer {
		return ErrIssuer
	}
	if !slices.ContainsFunc(v.audience, func(a string) bool { return slices.Contains(c.Audience, a) }) {
		return ErrAudience
	}
	return nil
}

// checkExpiry counts a token without "exp" as expired: it would be good for ever.
func (v *Validator) checkExpiry(c *Claims, now time.Time) error {
	if c.Expiry.IsZero() {
		return fmt.Errorf(`%w: no "exp" that is a number`, ErrExpired)
	}
	if !now.Before(c.Expiry.Add(v.leeway)) {
		return ErrExpired
	}
	return nil
}

// algorithm is a signature algorithm of RFC 7518 §3.1 or RFC 8037 §3.1.
type algorithm struct {
	hash  crypto.Hash
	kind  keyKind
	curve elliptic.Curve // of ECDSA
}

type keyKind int

const (
	noKind keyKind = iota // of no algorithm at all
	rsaPKCS1
	rsaPSS
	ecdsaRaw
	ed25519Pure
)

var algorithms = map[string]algorithm{
	"RS256": {crypto.SHA256, rsaPKCS1, nil},
	"RS384": {crypto.SHA384, rsaPKCS1, nil},
	"RS512": {crypto.SHA512, rsaPKCS1, nil},
	"PS256": {crypto.SHA256, rsaPSS, nil},
	"PS384": {crypto.SHA384, rsaPSS, nil},
	"PS512": {crypto.SHA512, rsaPSS, nil},
	"ES256": {crypto.SHA256, ecdsaRaw, elliptic.P256()},
	"ES384": {crypto.SHA384, ecdsaRaw, elliptic.P384()},
	"ES512": {crypto.SHA512, ecdsaRaw, elliptic.P521()},
	"EdDSA": {0, ed25519Pure, nil},
}

// fits reports whether the key is one of the algorithm's.
func (a algorithm) fits(key crypto.PublicKey) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return (a.kind == rsaPKCS1 || a.kind == rsaPSS) && usableRSA(key) == nil
	case *ecdsa.PublicKey:
		return a.kind == ecdsaRaw && hasPoint(key) && key.Curve == a.curve
	case ed25519.PublicKey:
		return a.kind == ed25519Pure && len(key) == ed25519.PublicKeySize
	}
	return false
}

// verify verifies with a key that fits. It calls the standard library, not jwx:
// jws.Verify takes PSS salts of any length, and RFC 7518 §3.5 one.
func (a algorithm) verify(key crypto.PublicKey, t *parsedToken) bool {
	signature := t.signature
	switch a.kind {
	case rsaPKCS1:
		return rsa.VerifyPKCS1v15(key.(*rsa.PublicKey), a.hash, a.digest(t), signature) == nil
	case rsaPSS:
		salt := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
		return rsa.VerifyPSS(key.(*rsa.PublicKey), a.hash, a.digest(t), signature, salt) == nil
	case ecdsaRaw:
		// RFC 7518 §3.4: R and S, each as long as the curve's order.
		size := (a.curve.Params().BitSize + 7) / 8
		if len(signature) != 2*size {
			return false
		}
		var buffer [2*66 + 9]byte // for P-521
		return ecdsa.VerifyASN1(key.(*ecdsa.PublicKey), a.digest(t), appendASN1(buffer[:0], signature[:size], signature[size:]))
	case ed25519Pure:
		return ed25519.Verify(key.(ed25519.PublicKey), []byte(t.signed), signature)
	}
	return false
}

// digest is what the signature is of.
func (a algorithm) digest(t *parsedToken) []byte {
	if a.hash == crypto.SHA256 {
		t.digestSigned = sumOf(t.signed)
		return t.digestSigned[:]
	}
	h := a.hash.New()
	h.Write([]byte(t.signed))
	return h.Sum(nil)
}

// appendASN1 appends what crypto/ecdsa takes: a SEQUENCE of two INTEGERs (RFC
// 3279 §2.2.3), which are unsigned numbers of at most 66 bytes.
func appendASN1(to, r, s []byte) []byte {
	var body [2 * (2 + 1 + 66)]byte
	content := appendInteger(appendInteger(body[:0], r), s)
	to = append(to, 0x30)
	if len(content) > 127 {
		to = append(to, 0x81)
	}
	return append(append(to, byte(len(content))), content...)
}

func appendInteger(to, n []byte) []byte {
	for len(n) > 1 && n[0] == 0 {
		n = n[1:]
	}
	if n[0] > 127 { // else it would be negative
		return append(append(to, 2, byte(len(n)+1), 0), n...)
	}
	return append(append(to, 2, byte(len(n))), n...)
}
