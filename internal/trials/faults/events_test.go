package faults_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/clock"
	"github.com/koreauth/koreauth/koretest"
)

// event is something that happens to an issuer or an API over time. A fault, in
// contrast, changes single responses.
type event struct {
	name, when string
	why        string // why a valid token may be rejected; empty: it must not be
	script     func(w *world)
}

const (
	keysMaxAge = 15 * time.Minute // the default of RemoteKeySet.MaxAge
	leaving    = 25 * time.Hour   // longer than the default of MaxStale
)

func events() []event {
	return append(append(outages(), caching()...), append(rotations(), clocks()...)...)
}

func outages() []event {
	refused, hanging := &faults()[1], &fault{behave: koretest.Hanging}
	idle := func(f *fault, d time.Duration) func(w *world) {
		return func(w *world) {
			remembered := w.long()
			w.send(&w.known, remembered)
			time.Sleep(d)
			w.misbehave(f)
			w.requests.Store(0)
			w.send(&w.known, w.long(), remembered)
			w.send(&w.fake, w.forgeries(firstKey.ID)...)
			w.ends(firstKey)
		}
	}
	return []event{
		{name: "down for a minute, then up", when: noKeys, script: func(w *world) {
			w.misbehave(refused)
			for second := range 120 {
				if second == 60 {
					w.misbehave(nil)
				}
				w.send(&w.fresh, w.valid(firstKey))
				w.send(&w.fake, w.forgeries(firstKey.ID)...)
				time.Sleep(time.Second)
			}
		}},
		{name: "down for 25 hours, one token a minute", when: cachedKeys, script: func(w *world) {
			token := w.long()
			w.send(&w.known, token)
			w.misbehave(refused)
			w.requests.Store(0)
			for start := time.Now(); time.Since(start) < leaving; time.Sleep(time.Minute) {
				w.send(&w.known, token)
				w.send(&w.fake, w.invented())
			}
			w.ends(firstKey)
		}},
		{name: "down, after 31 minutes without requests", when: cachedKeys, script: idle(refused, 2*keysMaxAge+time.Minute)},
		{name: "hangs, after 31 minutes without requests", when: cachedKeys, script: idle(hanging, 2*keysMaxAge+time.Minute)},
		{name: "up, after 12 hours without requests (or a clock step forward)", when: cachedKeys, script: idle(nil, 12*time.Hour)},
		{name: "hangs, after 25 hours without requests", when: cachedKeys, script: idle(hanging, leaving)},
		{name: "flood of 100 invented kids a second, for 20 s", when: cachedKeys, script: func(w *world) {
			w.send(&w.known, w.valid(firstKey))
			w.requests.Store(0)
			for range 200 {
				w.send(&w.known, w.valid(firstKey))
				for range 10 {
					w.send(&w.fake, w.invented())
				}
				time.Sleep(100 * time.Millisecond)
			}
		}},
		{name: "discovery down, then up", when: noKeys, script: func(w *world) {
			w.discover()
			w.issuer.Behave(koretest.Status(503), koretest.DiscoveryEndpoint)
			w.send(&w.fresh, w.valid(firstKey))
			w.send(&w.fake, w.forgeries(firstKey.ID)...)
			w.issuer.Behave(nil)
			w.until200(firstKey)
		}},
		{name: "discovery names another issuer, with a forger's keys", when: noKeys, script: func(w *world) {
			w.discover()
			w.issuer.Behave(changed(func(out http.ResponseWriter, _ *http.Request, s string) {
				_, _ = io.WriteString(out, strings.Replace(s, w.issuer.URL(), "http://"+otherHost, 1))
			}), koretest.DiscoveryEndpoint)
			w.issuer.Behave(forgersKeys, koretest.KeysEndpoint)
			w.send(&w.fresh, w.valid(firstKey))
			w.send(&w.fake, w.valid(forgerKey))
			w.issuer.Behave(nil)
			w.until200(firstKey)
		}},
		{name: "discovery names an http URL on another host", when: noKeys, script: func(w *world) {
			w.discover()
			w.issuer.Behave(changed(func(out http.ResponseWriter, _ *http.Request, s string) {
				_, _ = io.WriteString(out, strings.Replace(s, w.issuer.KeysURL(), "http://keys.example.com/", 1))
			}), koretest.DiscoveryEndpoint)
			w.issuer.Behave(forgersKeys, koretest.KeysEndpoint)
			w.send(&w.fresh, w.valid(firstKey))
			w.send(&w.fake, w.valid(forgerKey))
			w.issuer.Behave(nil)
			w.until200(firstKey)
		}},
	}
}

var forgersKeys = status(200, set(ecJWK(forgerKey.ID, forgerKey, "")))

// discover makes the guard find the keys by discovery.
func (w *world) discover() {
	w.keys = &koreauth.RemoteKeySet{Issuer: w.issuer.URL(), HTTPClient: w.client}
	w.guard()
}

// long returns a token that does not expire during an outage.
func (w *world) long() string {
	return w.mint(koretest.Token{Claims: map[string]any{"exp": time.Now().Add(koretest.ThirtyDays).Unix()}})
}

// caching returns events with headers that affect when keys are fetched again.
// In most rows one token is sent every ten seconds for an hour.
func caching() []event {
	var events []event
	for _, header := range []string{
		"none", "Cache-Control: max-age=0", "Cache-Control: max-age=60", "Cache-Control: max-age=86400", "Cache-Control: max-age=99999999999999999999",
		"Cache-Control: max-age=-1", "Cache-Control: max-age=soon", "Cache-Control: max-age", `Cache-Control: max-age="60"`, "cache-control: MAX-AGE=60",
		"Cache-Control: max-age=60, max-age=600", "Cache-Control: public, s-maxage=5, max-age=60", "Cache-Control: s-maxage=5", "Cache-Control: no-store", "Cache-Control: no-cache",
		"Cache-Control: private, must-revalidate", "Cache-Control: immutable", "Cache-Control: ,;=\"", "Expires: 0", "Pragma: no-cache", "Age: 99999",
	} {
		events = append(events, event{name: "`" + header + "`", when: oneHour, script: func(w *world) {
			w.misbehave(&fault{behave: status200(func(out http.ResponseWriter) {
				if name, value, ok := strings.Cut(header, ": "); ok {
					out.Header().Set(name, value)
				}
			})})
			w.hour()
		}})
	}
	etag := func(name, why string, behave koretest.Behavior) event {
		return event{name: name, when: newKey, why: why, script: func(w *world) {
			w.misbehave(&fault{behave: behave})
			w.halfHours()
		}}
	}
	return append(events,
		etag("ETag, and 304 if nothing has changed", "", nil),
		etag("weak ETag, and 304 if nothing has changed", "", tagged(func(s string) string { return fmt.Sprintf(`W/"%x"`, len(s)) })),
		etag("ETag that is different each time", "", tagged(func(string) string { return fmt.Sprintf(`"%d"`, time.Now().UnixNano()) })),
		etag("ETag that is not quoted", "", tagged(func(s string) string { return fmt.Sprint(len(s)) })),
		etag("ETag that stays the same when the keys change", "according to the issuer, there is no such key", tagged(func(string) string { return `"always"` })),
		event{name: "304 to a request without If-None-Match", when: noKeys, script: func(w *world) {
			w.atStart(fault{behave: status(304, "", `ETag: "x"`)})
		}},
	)
}

// hour sends tokens for an hour.
func (w *world) hour() {
	remembered := w.long()
	forged := w.mint(koretest.Token{Key: firstKey, BadSignature: true})
	for range 360 {
		w.send(&w.known, remembered)
		w.send(&w.fake, forged)
		time.Sleep(10 * time.Second)
	}
}

// halfHours sends tokens for an hour. After half of it a key is added.
func (w *world) halfHours() {
	for minute := range 60 {
		if minute == 30 {
			require.NoError(w.t, w.issuer.AddKey(secondKey))
		}
		w.send(&w.known, w.valid(firstKey))
		if minute >= 30 {
			w.send(&w.fresh, w.valid(secondKey))
		}
		w.send(&w.fake, w.mint(koretest.Token{Key: firstKey, BadSignature: true}))
		time.Sleep(time.Minute)
	}
}

// tagged sends an ETag, and 304 if the request has the same one.
func tagged(tag func(document string) string) koretest.Behavior {
	return changed(func(w http.ResponseWriter, r *http.Request, s string) {
		w.Header().Set("ETag", tag(s))
		if r.Header.Get("If-None-Match") == tag(s) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = io.WriteString(w, s)
	})
}

func rotations() []event {
	return []event{
		{name: "key added, signs immediately", when: cachedKeys, script: func(w *world) {
			w.send(&w.known, w.valid(firstKey))
			require.NoError(w.t, w.issuer.AddKey(secondKey))
			w.send(&w.fake, w.invented())
			w.send(&w.fresh, w.valid(secondKey))
			w.send(&w.fake, w.mint(koretest.Token{Key: secondKey, BadSignature: true}))
			w.until200(secondKey)
		}},
		{name: "key added, signs immediately, during a flood of invented kids", when: cachedKeys,
			why: "until the next fetch that MinInterval allows, the new kid looks like an invented one", script: func(w *world) {
				w.send(&w.known, w.valid(firstKey))
				for range 10 {
					w.send(&w.fake, w.invented())
				}
				require.NoError(w.t, w.issuer.AddKey(secondKey))
				w.send(&w.fresh, w.valid(secondKey))
				w.until200(secondKey)
				w.send(&w.fresh, w.valid(secondKey))
			}},
		{name: "key added MaxAge before it signs, during a flood of invented kids", when: cachedKeys, script: func(w *world) {
			w.send(&w.known, w.valid(firstKey))
			require.NoError(w.t, w.issuer.AddKey(secondKey))
			for start := time.Now(); time.Since(start) <= keysMaxAge; time.Sleep(time.Second) {
				w.send(&w.fake, w.invented())
			}
			w.send(&w.fresh, w.valid(secondKey))
			w.until200(secondKey)
		}},
		{name: "key removed; its tokens count as forged after MaxAge", when: cachedKeys, script: func(w *world) {
			require.NoError(w.t, w.issuer.AddKey(secondKey))
			remembered := w.valid(secondKey)
			w.send(&w.known, w.valid(firstKey), remembered)
			w.issuer.RemoveKey(secondKey.ID)
			time.Sleep(keysMaxAge)
			w.send(&w.known, w.valid(firstKey)) // starts a refresh in the background
			w.send(&w.fake, remembered, w.valid(secondKey))
		}},
		{name: "key replaced, same kid; then old tokens count as forged", when: cachedKeys, script: func(w *world) {
			replaced := named(secondKey, firstKey.ID)
			remembered := w.valid(firstKey)
			w.send(&w.known, remembered)
			w.issuer.RemoveKey(firstKey.ID)
			require.NoError(w.t, w.issuer.AddKey(replaced))
			w.send(&w.fresh, w.valid(replaced))
			w.until200(replaced)
			w.send(&w.fresh, w.valid(replaced))
			w.send(&w.fake, remembered, w.valid(firstKey))
		}},
		{name: "key replaced, neither has a kid; then old tokens count as forged", when: cachedKeys, script: func(w *world) {
			w.issuer.RemoveKey(firstKey.ID)
			require.NoError(w.t, w.issuer.AddKey(named(firstKey, "")))
			old, replaced := named(firstKey, ""), named(secondKey, "")
			remembered := w.valid(old)
			w.send(&w.known, remembered)
			w.issuer.RemoveKey("")
			require.NoError(w.t, w.issuer.AddKey(replaced))
			w.send(&w.fresh, w.valid(replaced))
			w.until200(replaced)
			w.send(&w.fake, remembered, w.valid(old))
		}},
		{name: "key replaced, same kid, during a flood of bad signatures", when: cachedKeys,
			why: "until the next fetch that MinInterval allows, the new signature looks like a bad one", script: func(w *world) {
				w.send(&w.known, w.valid(firstKey))
				for range 10 {
					w.send(&w.fake, w.mint(koretest.Token{Key: firstKey, BadSignature: true}))
				}
				replaced := named(secondKey, firstKey.ID)
				w.issuer.RemoveKey(firstKey.ID)
				require.NoError(w.t, w.issuer.AddKey(replaced))
				w.send(&w.fresh, w.valid(replaced))
				w.until200(replaced)
			}},
		{name: "key removed while the API's machine was suspended for 12 hours", when: cachedKeys, script: func(w *world) {
			require.NoError(w.t, w.issuer.AddKey(secondKey))
			remembered := w.long()
			removed := w.mint(koretest.Token{Key: secondKey, Claims: map[string]any{"exp": time.Now().Add(koretest.ThirtyDays).Unix()}})
			w.send(&w.known, remembered, removed)
			w.issuer.RemoveKey(secondKey.ID)
			defer clock.Suspend(12 * time.Hour)()
			w.send(&w.fake, removed)
			w.send(&w.known, remembered)
		}},
		{name: "three types of key with the same kid", when: cachedKeys, script: func(w *world) {
			w.issuer.RemoveKey(firstKey.ID)
			for _, key := range []*koretest.Key{firstKey, rsaKey, edKey} {
				require.NoError(w.t, w.issuer.AddKey(named(key, "one")))
			}
			for _, key := range []*koretest.Key{firstKey, rsaKey, edKey, firstKey, rsaKey} {
				w.send(&w.known, w.valid(named(key, "one")))
			}
			w.send(&w.fake, w.forgeries("one")...)
			w.send(&w.fake, w.mint(koretest.Token{Key: named(rsaKey, "one"), BadSignature: true}), w.mint(koretest.Token{Key: named(edKey, "one"), BadSignature: true}),
				w.mint(koretest.Token{Key: named(rsaKey, "one"), Header: map[string]any{"alg": "PS256"}}),
				w.mint(koretest.Token{Key: &koretest.Key{ID: "one", Algorithm: "HS256", Private: []byte(ecJWK(firstKey.ID, firstKey, ""))}}))
		}},
		{name: "two keys of the same type with the same kid", when: cachedKeys, script: func(w *world) {
			require.NoError(w.t, w.issuer.AddKey(named(secondKey, firstKey.ID)))
			w.send(&w.known, w.valid(firstKey), w.valid(named(secondKey, firstKey.ID)))
			w.send(&w.fake, w.forgeries(firstKey.ID)...)
		}},
		{name: "one key, without a kid", when: cachedKeys, script: func(w *world) {
			w.issuer.RemoveKey(firstKey.ID)
			require.NoError(w.t, w.issuer.AddKey(named(firstKey, "")))
			w.send(&w.known, w.valid(named(firstKey, "")))
			w.send(&w.known, w.valid(named(firstKey, "named")))
			w.send(&w.fake, w.forgeries("")...)
			w.send(&w.fake, w.valid(named(secondKey, "named")))
		}},
		{name: "two keys of the same type without a kid", when: cachedKeys, script: func(w *world) {
			w.issuer.RemoveKey(firstKey.ID)
			require.NoError(w.t, w.issuer.AddKey(named(firstKey, "")))
			require.NoError(w.t, w.issuer.AddKey(named(secondKey, "")))
			w.send(&w.known, w.valid(named(firstKey, "")), w.valid(named(secondKey, "")))
			w.send(&w.fake, w.forgeries("")...)
		}},
	}
}

// clocks returns events in which clocks differ or step. The clock of a bubble only
// goes forward, so most of them change the age of the tokens instead. A machine that
// is suspended is in rotations.
func clocks() []event {
	issued := func(age time.Duration) func(w *world) {
		return func(w *world) {
			w.send(&w.known, w.mint(koretest.Token{Age: age}), w.mint(koretest.Token{Age: age}))
			w.send(&w.fake, w.mint(koretest.Token{Age: age, BadSignature: true}))
		}
	}
	return []event{
		{name: "API's clock 5 minutes behind", when: cachedKeys, script: issued(-5 * time.Minute)},
		{name: "API's clock 10 years behind", when: cachedKeys, script: issued(-10 * 365 * 24 * time.Hour)},
		{name: "API's clock 59 minutes ahead, tokens valid for an hour", when: cachedKeys, script: issued(59 * time.Minute)},
		{name: "API's clock an hour ahead, tokens valid for an hour", when: cachedKeys, why: "by the API's clock they have expired", script: issued(time.Hour)},
		{name: "clock steps an hour forward: a cached token has expired", when: cachedKeys, script: func(w *world) {
			token := w.valid(firstKey)
			w.send(&w.known, token, token)
			time.Sleep(time.Hour)
			w.send(&w.known, w.valid(firstKey))
			w.send(&w.fake, token)
		}},
	}
}
