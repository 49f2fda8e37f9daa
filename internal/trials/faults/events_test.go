package faults_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// event is what happens in the life of an issuer or of an API, rather than to
// one answer.
type event struct {
	name, when string
	why        string // why a valid token may be refused; empty: it may not
	script     func(w *world)
}

const (
	keysMaxAge = 15 * time.Minute // RemoteKeySet's defaults
	leaving    = 25 * time.Hour   // longer than MaxStale
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
		{name: "down for a minute, then up", when: "at the start", script: func(w *world) {
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
		{name: "down for 25 hours, a token every minute", when: "keys held", script: func(w *world) {
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
		{name: "down when nobody has asked for 31 minutes", when: "keys held", script: idle(refused, 2*keysMaxAge+time.Minute)},
		{name: "hanging when nobody has asked for 31 minutes", when: "keys held", script: idle(hanging, 2*keysMaxAge+time.Minute)},
		{name: "up when nobody has asked for 12 hours (or the clock leaps forward)", when: "keys held", script: idle(nil, 12*time.Hour)},
		{name: "hanging when nobody has asked for 25 hours", when: "keys held", script: idle(hanging, leaving)},
		{name: "a flood of 100 invented kids a second, for 20 s", when: "keys held", script: func(w *world) {
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
		{name: "discovery down, then up", when: "at the start", script: func(w *world) {
			w.discover()
			w.issuer.Behave(koretest.Status(503), koretest.DiscoveryEndpoint)
			w.send(&w.fresh, w.valid(firstKey))
			w.send(&w.fake, w.forgeries(firstKey.ID)...)
			w.issuer.Behave(nil)
			w.until200(firstKey)
		}},
		{name: "discovery tells of another issuer, with a forger's keys", when: "at the start", script: func(w *world) {
			w.discover()
			w.issuer.Behave(changed(func(out http.ResponseWriter, _ *http.Request, s string) {
				_, _ = io.WriteString(out, strings.Replace(s, w.issuer.URL(), "http://"+otherHost, 1))
			}), koretest.DiscoveryEndpoint)
			w.issuer.Behave(forgersKeys, koretest.KeysEndpoint)
			w.send(&w.fresh, w.valid(firstKey))
			w.send(&w.fake, w.valid(strangerKey))
			w.issuer.Behave(nil)
			w.until200(firstKey)
		}},
		{name: "discovery points to plain http on another host", when: "at the start", script: func(w *world) {
			w.discover()
			w.issuer.Behave(changed(func(out http.ResponseWriter, _ *http.Request, s string) {
				_, _ = io.WriteString(out, strings.Replace(s, w.issuer.KeysURL(), "http://keys.example.com/", 1))
			}), koretest.DiscoveryEndpoint)
			w.issuer.Behave(forgersKeys, koretest.KeysEndpoint)
			w.send(&w.fresh, w.valid(firstKey))
			w.send(&w.fake, w.valid(strangerKey))
			w.issuer.Behave(nil)
			w.until200(firstKey)
		}},
	}
}

var forgersKeys = status(200, set(ecJWK(strangerKey.ID, strangerKey, "")))

// discover makes the guard ask the issuer where the keys are.
func (w *world) discover() {
	w.keys = &koreauth.RemoteKeySet{Issuer: w.issuer.URL(), HTTPClient: w.client}
	w.guard()
}

// long returns a token that outlives all outages.
func (w *world) long() string {
	return w.mint(koretest.Token{Claims: map[string]any{"exp": time.Now().Add(koretest.ThirtyDays).Unix()}})
}

// caching are the headers by which a server would have a say in when it is asked.
// Each row is one hour of a token every ten seconds.
func caching() []event {
	var events []event
	for _, header := range []string{
		"none", "Cache-Control: max-age=0", "Cache-Control: max-age=60", "Cache-Control: max-age=86400", "Cache-Control: max-age=99999999999999999999",
		"Cache-Control: max-age=-1", "Cache-Control: max-age=soon", "Cache-Control: max-age", `Cache-Control: max-age="60"`, "cache-control: MAX-AGE=60",
		"Cache-Control: max-age=60, max-age=600", "Cache-Control: public, s-maxage=5, max-age=60", "Cache-Control: s-maxage=5", "Cache-Control: no-store", "Cache-Control: no-cache",
		"Cache-Control: private, must-revalidate", "Cache-Control: immutable", "Cache-Control: ,;=\"", "Expires: 0", "Pragma: no-cache", "Age: 99999",
	} {
		events = append(events, event{name: "`" + header + "`", when: "an hour", script: func(w *world) {
			w.misbehave(&fault{behave: status200(func(out http.ResponseWriter) {
				if name, value, ok := strings.Cut(header, ": "); ok {
					out.Header().Set(name, value)
				}
			})})
			w.hour()
		}})
	}
	etag := func(name, why string, behave koretest.Behavior) event {
		return event{name: name, when: "an hour, a new key after half of it", why: why, script: func(w *world) {
			w.misbehave(&fault{behave: behave})
			w.halfHours()
		}}
	}
	return append(events,
		etag("ETag, and 304 while nothing has changed", "", nil),
		etag("weak ETag, and 304 while nothing has changed", "", tagged(func(s string) string { return fmt.Sprintf(`W/"%x"`, len(s)) })),
		etag("ETag that differs each time", "", tagged(func(string) string { return fmt.Sprintf(`"%d"`, time.Now().UnixNano()) })),
		etag("ETag that is not quoted", "", tagged(func(s string) string { return fmt.Sprint(len(s)) })),
		etag("ETag that stays although the keys change", "the issuer says that there is no such key", tagged(func(string) string { return `"always"` })),
		event{name: "304 that was not asked for", when: "at the start", script: func(w *world) {
			w.atStart(fault{behave: status(304, "", `ETag: "x"`)})
		}},
	)
}

// hour is a steady hour.
func (w *world) hour() {
	remembered := w.long()
	forged := w.mint(koretest.Token{Key: firstKey, BadSignature: true})
	for range 360 {
		w.send(&w.known, remembered)
		w.send(&w.fake, forged)
		time.Sleep(10 * time.Second)
	}
}

// halfHours is an hour in the middle of which a key is added.
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

// tagged answers with an ETag, and by it with 304.
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
		{name: "a key is added, and signs at once", when: "keys held", script: func(w *world) {
			w.send(&w.known, w.valid(firstKey))
			require.NoError(w.t, w.issuer.AddKey(secondKey))
			w.send(&w.fake, w.invented())
			w.send(&w.fresh, w.valid(secondKey))
			w.send(&w.fake, w.mint(koretest.Token{Key: secondKey, BadSignature: true}))
			w.until200(secondKey)
		}},
		{name: "a key is added, and signs at once, in a flood of invented kids", when: "keys held",
			why: "until the next fetch that MinInterval allows, it cannot be told from the flood", script: func(w *world) {
				w.send(&w.known, w.valid(firstKey))
				for range 10 {
					w.send(&w.fake, w.invented())
				}
				require.NoError(w.t, w.issuer.AddKey(secondKey))
				w.send(&w.fresh, w.valid(secondKey))
				w.until200(secondKey)
				w.send(&w.fresh, w.valid(secondKey))
			}},
		{name: "a key is added a MaxAge before it signs, in a flood of invented kids", when: "keys held", script: func(w *world) {
			w.send(&w.known, w.valid(firstKey))
			require.NoError(w.t, w.issuer.AddKey(secondKey))
			for start := time.Now(); time.Since(start) <= keysMaxAge; time.Sleep(time.Second) {
				w.send(&w.fake, w.invented())
			}
			w.send(&w.fresh, w.valid(secondKey))
			w.until200(secondKey)
		}},
		{name: "a key is removed: a MaxAge later its tokens are forged ones", when: "keys held", script: func(w *world) {
			require.NoError(w.t, w.issuer.AddKey(secondKey))
			remembered := w.valid(secondKey)
			w.send(&w.known, w.valid(firstKey), remembered)
			w.issuer.RemoveKey(secondKey.ID)
			time.Sleep(keysMaxAge)
			w.send(&w.known, w.valid(firstKey)) // and behind its back the keys are fetched
			w.send(&w.fake, remembered, w.valid(secondKey))
		}},
		{name: "a key is replaced under its kid: a MaxAge later the old one's tokens are forged ones", when: "keys held",
			why: "until the refresh the signature is wrong, and that costs no fetch", script: func(w *world) {
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
		{name: "three kinds of key under one kid", when: "keys held", script: func(w *world) {
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
		{name: "two keys of one kind under one kid", when: "keys held", script: func(w *world) {
			require.NoError(w.t, w.issuer.AddKey(named(secondKey, firstKey.ID)))
			w.send(&w.known, w.valid(firstKey), w.valid(named(secondKey, firstKey.ID)))
			w.send(&w.fake, w.forgeries(firstKey.ID)...)
		}},
		{name: "one key, without a kid", when: "keys held", script: func(w *world) {
			w.issuer.RemoveKey(firstKey.ID)
			require.NoError(w.t, w.issuer.AddKey(named(firstKey, "")))
			w.send(&w.known, w.valid(named(firstKey, "")))
			w.send(&w.fake, w.forgeries("")...)
			w.send(&w.fake, w.valid(named(firstKey, "named")))
		}},
		{name: "two keys of one kind, without a kid", when: "keys held", why: "nothing says which key is meant", script: func(w *world) {
			w.issuer.RemoveKey(firstKey.ID)
			require.NoError(w.t, w.issuer.AddKey(named(firstKey, "")))
			require.NoError(w.t, w.issuer.AddKey(named(secondKey, "")))
			w.send(&w.known, w.valid(named(firstKey, "")))
			w.send(&w.fake, w.forgeries("")...)
		}},
	}
}

// clocks are made by the age of tokens, for the clock of a bubble goes forward
// only. How old keys are is told by Go's monotonic clock, which does not step.
func clocks() []event {
	issued := func(age time.Duration) func(w *world) {
		return func(w *world) {
			w.send(&w.known, w.mint(koretest.Token{Age: age}), w.mint(koretest.Token{Age: age}))
			w.send(&w.fake, w.mint(koretest.Token{Age: age, BadSignature: true}))
		}
	}
	return []event{
		{name: "the API's clock is 5 minutes behind the issuer's", when: "keys held", script: issued(-5 * time.Minute)},
		{name: "the API's clock is 10 years behind the issuer's", when: "keys held", script: issued(-10 * 365 * 24 * time.Hour)},
		{name: "the API's clock is 59 minutes ahead, tokens of an hour", when: "keys held", script: issued(59 * time.Minute)},
		{name: "the API's clock is an hour ahead, tokens of an hour", when: "keys held", why: "by this clock they have expired", script: issued(time.Hour)},
		{name: "the clock leaps an hour: what was remembered has expired", when: "keys held", script: func(w *world) {
			token := w.valid(firstKey)
			w.send(&w.known, token, token)
			time.Sleep(time.Hour)
			w.send(&w.known, w.valid(firstKey))
			w.send(&w.fake, token)
		}},
	}
}
