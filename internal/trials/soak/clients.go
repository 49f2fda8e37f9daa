package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// How many requests a second each client sends. The race detector makes all of
// them several times as expensive.
func rates() (steady, crowd int) {
	if raceDetector {
		return 10, 15
	}
	return 40, 60
}

// mint keeps new valid tokens at hand.
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

// next returns a new valid token of the key that signs now.
func (w *world) next() token {
	for {
		if t := <-w.fresh; t.key == w.signing.Load() {
			return t
		}
	}
}

// beat calls send so many times a second, each time with when it was due.
func beat(ctx context.Context, perSecond int, send func(due time.Time)) {
	period := time.Second / time.Duration(perSecond)
	due := time.Now().Add(rand.N(period)) // not all clients at once
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

// steady is a client with valid tokens: one that it keeps, and every fourth time
// a new one.
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
			w.wrong("%s, in %s: %d (%v)", what, during, status, err)
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

func (w *world) now() phase { return phase(w.phase.Load()) }

// crowd is a client that sends what the phase demands.
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
			if w.count("valid, of the crowd", status); status != http.StatusOK {
				w.wrong("valid, of the crowd: %d (%v)", status, err)
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

// hostile returns something that must be refused, made of a valid token.
func (w *world) hostile(turn int, valid string) (what, text string) {
	parts := strings.Split(valid, ".")
	switch turn % 6 {
	case 0, 1:
		// The signature is never looked at, so it need not even be the forger's.
		header := fmt.Sprintf(`{"alg":"RS256","typ":"JWT","kid":"invented-%d"}`, rand.Int64())
		return "forged: an invented key ID", base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + parts[1] + "." + parts[2]
	case 2:
		other := "A"
		if strings.HasPrefix(parts[2], other) {
			other = "B"
		}
		return "forged: a changed signature", parts[0] + "." + parts[1] + "." + other + parts[2][1:]
	case 3:
		return "garbage", strings.Repeat("garbage.", 200)
	case 4:
		if removed := w.removed.Load(); removed != nil {
			return "forged: of a removed key", *removed
		}
	}
	return "no token", ""
}
