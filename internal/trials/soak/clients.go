package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/koreauth/koreauth/koreclient"
)

// rates returns how many requests each client sends per second. With the race
// detector, a request takes several times as long.
func rates() (steady, crowd int) {
	if raceDetector {
		return 10, 15
	}
	return 40, 60
}

// mint keeps the channel of new valid tokens full.
func (w *world) mint(ctx context.Context) {
	for {
		key := w.signing.Load()
		select {
		case w.fresh <- token{w.valid(key), key}:
		case <-ctx.Done():
			return
		}
	}
}

// next returns a new valid token, signed with the current key.
func (w *world) next() token {
	for {
		if t := <-w.fresh; t.key == w.signing.Load() {
			return t
		}
	}
}

// beat calls send perSecond times a second. It passes the time at which the call
// was due.
func beat(ctx context.Context, perSecond int, send func(due time.Time)) {
	period := time.Second / time.Duration(perSecond)
	due := time.Now().Add(rand.N(period)) // so that the clients do not send all at once
	for {
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
			return
		}
		send(due)
		due = due.Add(period)
	}
}

// steady is a client with valid tokens. It sends the same token three times out
// of four, and a new one the fourth time.
func (w *world) steady(ctx context.Context, number int) {
	client := newClient()
	defer client.CloseIdleConnections()
	rate, _ := rates()
	kept := w.next()
	waited := map[phase][]time.Duration{}
	turn := number
	beat(ctx, rate, func(due time.Time) {
		during := w.now()
		turn++
		what, text := "valid, sent before", kept.text
		if turn%4 == 0 {
			what, text = "valid, new", w.next().text
		}
		status, err := w.send(client, text)
		took := time.Since(due)
		w.count(what, status)
		if status != http.StatusOK {
			w.wrong("%s, phase %s: %d (%v)", what, during, status, err)
		}
		if during == w.now() {
			waited[during] = append(waited[during], took)
		}
		if kept.key != w.signing.Load() {
			kept = w.next()
		}
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	for p, more := range waited {
		w.waits[p] = append(w.waits[p], more...)
	}
}

// refreshing is a client that gets its tokens from the token endpoint with koreclient. It
// keeps a token while its key is removed, and must get another one for that request.
func (w *world) refreshing(ctx context.Context) {
	transport := &http.Transport{MaxIdleConnsPerHost: 1}
	defer transport.CloseIdleConnections()
	demo := w.issuer.Client()
	client, err := koreclient.New(koreclient.Config{
		TokenURL: w.issuer.TokenURL(), ClientID: demo.ID, ClientSecret: demo.Secret, HTTPClient: &http.Client{Transport: transport},
	})
	if err != nil {
		panic(err) // cannot happen: nothing is missing
	}
	api := &http.Client{Transport: client.Transport(transport, "127.0.0.1"), Timeout: time.Minute}
	rate, _ := rates()
	beat(ctx, rate, func(time.Time) {
		status, err := w.send(api, "")
		if w.count("valid, with koreclient", status); status != http.StatusOK {
			w.wrong("valid, with koreclient, phase %s: %d (%v)", w.now(), status, err)
		}
	})
}

func (w *world) now() phase { return phase(w.phase.Load()) }

// crowd is a client whose requests depend on the phase.
func (w *world) crowd(ctx context.Context, number int) {
	client := newClient()
	defer client.CloseIdleConnections()
	_, rate := rates()
	kept := w.next()
	turn := number
	beat(ctx, rate, func(time.Time) {
		during := w.now()
		if kept.key != w.signing.Load() {
			kept = w.next()
		}
		switch during {
		case calm:
			status, err := w.send(client, kept.text)
			if w.count("valid, from the crowd", status); status != http.StatusOK {
				w.wrong("valid, from the crowd: %d (%v)", status, err)
			}
		case load:
			turn++
			what, text := w.hostile(turn, kept.text)
			status, err := w.send(client, text)
			if w.count(what, status); status != http.StatusForbidden && status != http.StatusServiceUnavailable && (status != http.StatusUnauthorized || text != "") {
				w.wrong("%s: %d (%v)", what, status, err)
			}
		}
	})
}

// hostile returns a token that must be rejected, made from a valid one, or no
// token.
func (w *world) hostile(turn int, valid string) (what, text string) {
	parts := strings.Split(valid, ".")
	switch turn % 6 {
	case 0, 1:
		// The signature can be anything: without a key it is never verified.
		header := fmt.Sprintf(`{"alg":"RS256","typ":"JWT","kid":"invented-%d"}`, rand.Int64())
		return "forged: invented key ID", base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + parts[1] + "." + parts[2]
	case 2:
		other := "A"
		if strings.HasPrefix(parts[2], other) {
			other = "B"
		}
		return "forged: changed signature", parts[0] + "." + parts[1] + "." + other + parts[2][1:]
	case 3:
		return "garbage", strings.Repeat("garbage.", 200)
	case 4:
		if removed := w.removed.Load(); removed != nil {
			return "forged: removed key", *removed
		}
	}
	return "no token", ""
}
