package devissuer

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// choice is something to choose on the page. The first of a list is the default.
type choice struct{ ID, Label string }

// chosen returns the element of a list with an ID.
func chosen[C any](list []C, id string, of func(C) choice) (C, bool) {
	n := slices.IndexFunc(list, func(c C) bool { return of(c).ID == id })
	if n < 0 {
		var none C
		return none, false
	}
	return list[n], true
}

// choices returns what is to be chosen from a list.
func choices[C any](list []C, of func(C) choice) []choice {
	found := make([]choice, len(list))
	for n, c := range list {
		found[n] = of(c)
	}
	return found
}

// client is a registered client, without its secret. The first one is printed.
type client struct {
	choice
	client koretest.Client
}

func (c client) of() choice { return c.choice }

var clients = []client{
	{choice{"kc_demo", "kc_demo: all permissions"}, koretest.Client{
		Resources: map[string][]string{"API Clients": {"Read", "Write", "Modify", "Delete"}},
		Products:  []string{"SuperSIM", "ProgrammableWireless"},
	}},
	{choice{"kc_reader", "kc_reader: API Clients Read"}, koretest.Client{
		Resources: map[string][]string{"API Clients": {"Read"}},
	}},
	{choice{"kc_standard", "kc_standard: SuperSIM"}, koretest.Client{
		Products: []string{"SuperSIM"},
	}},
}

// lifetime is how long a token is valid: those that KORE offers, and a short one.
type lifetime struct {
	choice
	duration time.Duration
}

func (l lifetime) of() choice { return l.choice }

var lifetimes = []lifetime{
	{choice{"1h", "1 hour"}, koretest.OneHour},
	{choice{"1m", "1 minute"}, time.Minute},
	{choice{"1d", "1 day"}, koretest.OneDay},
	{choice{"30d", "30 days"}, koretest.ThirtyDays},
	{choice{"24mo", "24 months"}, koretest.TwentyFourMonths},
}

// requirement is what the route that a token is for requires.
type requirement struct {
	choice
	requirements []koreauth.Requirement
}

func (r requirement) of() choice { return r.choice }

var requirements = []requirement{
	{choice{"read", "grant API Clients Read"}, []koreauth.Requirement{koreauth.Grant("API Clients", koreauth.Read)}},
	{choice{"delete", "grant API Clients Delete"}, []koreauth.Requirement{koreauth.Grant("API Clients", koreauth.Delete)}},
	{choice{"product", "product SuperSIM"}, []koreauth.Requirement{koreauth.Product("SuperSIM")}},
	{choice{"scope", "scope email"}, []koreauth.Requirement{koreauth.Scope("email")}},
	{choice{"none", "nothing"}, nil},
}

// behavior is how the endpoints of the issuer answer.
type behavior struct {
	choice
	behave koretest.Behavior
}

func (b behavior) of() choice { return b.choice }

var behaviors = []behavior{
	{choice{"normal", "normal"}, nil},
	{choice{"down", "close the connection"}, koretest.Down},
	{choice{"hanging", "never answer"}, koretest.Hanging},
	{choice{"slow", "answer after 2 seconds"}, koretest.Slow(2 * time.Second)},
	{choice{"garbage", "answer 200 with HTML"}, koretest.Garbage},
	{choice{"empty", "answer 200 without a body"}, koretest.Empty},
	{choice{"429", "answer 429"}, koretest.Status(http.StatusTooManyRequests)},
	{choice{"500", "answer 500"}, koretest.Status(http.StatusInternalServerError)},
	{choice{"503", "answer 503"}, koretest.Status(http.StatusServiceUnavailable)},
}

// endpoint is a choice of endpoints.
type endpoint struct {
	choice
	endpoints []koretest.Endpoint // none: all
}

func (e endpoint) of() choice { return e.choice }

var endpoints = []endpoint{
	{choice{"all", "all"}, nil},
	{choice{"keys", "discovery and keys"}, []koretest.Endpoint{koretest.DiscoveryEndpoint, koretest.KeysEndpoint}},
	{choice{"token", "token"}, []koretest.Endpoint{koretest.TokenEndpoint}},
}

// fault is what is wrong with a token. At most one of edit and change is set.
type fault struct {
	choice
	edit   func(*koretest.Token) // of the token to make
	change func(string) string   // of the token that was made
}

func (f fault) of() choice { return f.choice }

// forged is the fault whose key is not published.
const forged = "unknown-key"

var faults = []fault{
	{choice: choice{"none", "none, a valid token"}},
	{choice: choice{"expired", "expired an hour ago"}, edit: func(t *koretest.Token) { t.Age = time.Hour }},
	{choice: choice{"no-expiry", "no expiry"}, edit: drop("exp")},
	{choice: choice{"not-before", "valid in an hour (nbf)"}, edit: func(t *koretest.Token) {
		t.Claims["nbf"] = time.Now().Add(time.Hour).Unix()
	}},
	{choice: choice{"audience", "audience: account"}, edit: claim("aud", "account")},
	{choice: choice{"issuer", "issuer: another realm"}, edit: claim("iss", "https://keycloak.example.com/realms/OTHER")},
	{choice: choice{"issuer-slash", "issuer: a final slash"}, edit: func(t *koretest.Token) { t.Claims["iss"] = t.Claims["iss"].(string) + "/" }},
	{choice: choice{"id-token", "an ID token"}, edit: claim("typ", "ID")},
	{choice: choice{"refresh-token", "a refresh token"}, edit: claim("typ", "Refresh")},
	{choice: choice{"bound", "bound to a key (DPoP)"}, edit: func(t *koretest.Token) {
		t.Confirmation = &koreauth.Confirmation{KeySHA256: base64.RawURLEncoding.EncodeToString(make([]byte, 32))}
	}},
	{choice: choice{"no-permission", "no permissions"}, edit: drop("scopes", "scope")},
	{choice: choice{"signature", "bad signature"}, edit: func(t *koretest.Token) { t.BadSignature = true }},
	{choice: choice{forged, "signed with an unknown key"}},
	{choice: choice{"unsigned", "unsigned (alg none)"}, edit: func(t *koretest.Token) { t.Algorithm = "none" }},
	{choice: choice{"shared-secret", "signed with HS256"}, edit: func(t *koretest.Token) {
		t.Key = &koretest.Key{ID: "shared", Algorithm: "HS256", Private: []byte("a secret that many programs have")}
	}},
	{choice: choice{"critical", "an unknown extension (crit)"}, edit: func(t *koretest.Token) {
		t.Header = map[string]any{"crit": []string{"example"}, "example": true}
	}},
	{choice: choice{"cut", "cut when it was copied"}, change: func(token string) string { return token[:strings.LastIndexByte(token, '.')] }},
	{choice: choice{"quoted", "quotes around it"}, change: func(token string) string { return `"` + token + `"` }},
}

func claim(name string, value any) func(*koretest.Token) {
	return func(t *koretest.Token) { t.Claims[name] = value }
}

func drop(claims ...string) func(*koretest.Token) {
	return func(t *koretest.Token) { t.Drop = claims }
}
