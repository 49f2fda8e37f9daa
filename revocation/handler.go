package revocation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/bounded"
	"github.com/koreauth/koreauth/internal/redact"
	"github.com/koreauth/koreauth/internal/secret"
)

// The limits of the handler.
const (
	maxBody      = 64 << 10
	reasonLimit  = 512 // bytes
	pageSize     = 100 // rules in an answer
	maxPageSize  = 1000
	storeTimeout = 5 * time.Second // of the calls of the store for one request
	maxSettle    = 5 * time.Second // how far ahead a moment may be that POST waits for
	maxCalls     = 64              // of the store at the same time
)

// Handler returns a handler that appends rules to the store and lists them. Mount it
// behind a guard, at any path, and let only operators through: whoever may use it can
// stop every client. The caller's client ID becomes the By of the rule. A request
// without claims in its context, or whose token names no client, gets 403.
//
//	mux.Handle("/revocations", guard.Require(koreauth.Grant("Revocations", koreauth.Write))(revocation.Handler(store, revoked)))
//
// POST appends a rule. The body is one JSON object of up to 64 KiB, of type
// application/json if it has a Content-Type, with the members issuer, token, client,
// account, subject, everything, issued_before, until and reason, as in [Rule]. Times
// are in RFC 3339. reason has up to 512 bytes of printable text. The answer is 201
// {"seq","at","rule"}. If IssuedBefore of the rule is now, or within five seconds, POST
// answers when that second has passed: a token that the client fetches after that is
// not revoked by the rule. If the client does not wait so long, the rule is in the
// store nevertheless.
//
// DELETE with the same body lifts the rule: it appends the rule with Lift, and answers
// 201 in the same form. IssuedBefore does not matter for that.
//
// With ?dry-run=true nothing is appended. The answer is 200 {"tokens","clients"}: how
// many of the tokens that l has seen lately the rule would stop, and of which clients.
// A dry run of DELETE checks the body, and answers that no token would be stopped.
//
// GET ?after=SEQ&limit=N answers 200 {"rules","next","replicas"} with up to N receipts
// whose Seq is greater than SEQ, oldest first. N is 100 unless it is set, and at most
// 1,000; SEQ is 0 unless it is set. next is the SEQ for the next page, and equals SEQ
// if there is no other rule. replicas tells how many replicas of the fleet are known,
// and how many of them have all rules. It is 1 of 1 for a store that is not a [Fleet].
//
// Other answers are {"error","error_description"} with a status 4xx for a request that
// cannot be done, such as one with an unknown query parameter or with a whole token in
// place of its "jti". A store that fails or does not answer within five seconds gets
// 503; its error is logged. The request may then be repeated: a rule that is there
// twice has the same effect. No answer contains a token.
//
// The Logger of l gets one audit record for each rule, with its reason and by, from
// the handler or from [List.Follow], whichever has the rule first. It has the subject or
// account of no rule, which may be personal data: find these with GET and the seq.
//
// Handler panics if s or l is nil.
func Handler(s Store, l *List) http.Handler {
	if isNil(s) {
		panic("revocation: Handler needs a Store, such as the result of File")
	}
	if l == nil {
		panic("revocation: Handler needs a *List, which has the Logger and knows the tokens for a dry run")
	}
	return &handler{s, l, make(chan struct{}, maxCalls)}
}

// handler is the result of Handler.
type handler struct {
	store Store
	list  *List
	calls chan struct{} // has an element for each call of store that has not returned
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	status, answer, err := h.answer(r)
	body, _ := json.Marshal(answer) // cannot fail: the moments have been checked
	if err != nil {
		refused := h.refuse(r, err)
		switch status = refused.status; status {
		case http.StatusMethodNotAllowed:
			header.Set("Allow", "DELETE, GET, POST")
		case http.StatusRequestEntityTooLarge:
			header.Set("Connection", "close") // so that the server does not read the rest
		case http.StatusServiceUnavailable:
			header.Set("Retry-After", "1")
		}
		body, _ = json.Marshal(refused)
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // fails only if the client has disconnected
}

// answer does what the request asks for. The error is a *refusal, or that of the store.
func (h *handler) answer(r *http.Request) (status int, body any, err error) {
	claims, ok := koreauth.FromContext(r.Context())
	if !ok || claims.ClientID == "" {
		return 0, nil, &refusal{http.StatusForbidden, "access_denied", "The caller is not known: this needs the token of a client, and a guard around this handler"}
	}
	switch r.Method {
	case http.MethodPost, http.MethodDelete:
		return h.change(r, claims.ClientID)
	case http.MethodGet:
		return h.page(r)
	}
	return 0, nil, &refusal{http.StatusMethodNotAllowed, "method_not_allowed", "Use POST to revoke, DELETE to lift, and GET to list"}
}

// change answers POST and DELETE.
func (h *handler) change(r *http.Request, by string) (status int, body any, err error) {
	dryRun, err := readDryRun(r)
	if err != nil {
		return 0, nil, err
	}
	text, err := readBody(r)
	if err != nil {
		return 0, nil, err
	}
	rule, err := askedRule(text, by, r.Method == http.MethodDelete)
	if err != nil {
		return 0, nil, err
	}
	if dryRun {
		return http.StatusOK, h.dryRun(rule), nil
	}
	receipt, err := call(r.Context(), h, func(ctx context.Context) (Receipt, error) { return h.store.Append(ctx, rule) })
	if err != nil {
		return 0, nil, err
	}
	key, err := receipt.check()
	if err != nil {
		return 0, nil, fmt.Errorf("Append returned an invalid receipt: %w", err)
	}
	h.list.journal.audit(h.list.Logger, &receipt, key)
	if !rule.Lift {
		settle(r.Context(), receipt.Rule)
	}
	return http.StatusCreated, shown(receipt), nil
}

// dryRun returns what the rule would do. A lift stops nothing.
func (h *handler) dryRun(rule Rule) any {
	answer := struct {
		Tokens  int      `json:"tokens"`
		Clients []string `json:"clients"`
	}{Clients: []string{}}
	if !rule.Lift {
		tokens, clients := h.list.wouldStop(rule)
		answer.Tokens, answer.Clients = tokens, append(answer.Clients, clients...)
	}
	return answer
}

// settle waits until the second of the rule's moment has passed, because "iat" has
// whole seconds. IssuedBefore of a rule about one token is zero, long ago. settle returns
// early if ctx is done: the rule is in the store.
func settle(ctx context.Context, rule Rule) {
	passed := rule.IssuedBefore.Truncate(time.Second).Add(time.Second)
	for wait := time.Until(passed); 0 < wait && wait <= maxSettle; wait = time.Until(passed) {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// shown returns a receipt for an answer. The rules that were not appended by a handler
// may contain a token.
func shown(r Receipt) Receipt {
	for _, m := range textMembers(&r.Rule) {
		if secret.HasJWT(*m.value) {
			*m.value = "[redacted]"
		}
	}
	return r
}

// replicas are those of a fleet.
type replicas struct {
	Known   int `json:"known"`
	Current int `json:"current"`
}

// page answers GET.
func (h *handler) page(r *http.Request) (status int, body any, err error) {
	after, limit, err := readRange(r)
	if err != nil {
		return 0, nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	page := struct {
		Rules    []Receipt `json:"rules"`
		Next     uint64    `json:"next"`
		Replicas replicas  `json:"replicas"`
	}{Next: after, Replicas: replicas{1, 1}}
	if page.Rules, err = h.read(ctx, after, limit); err != nil {
		return 0, nil, err
	}
	for i, receipt := range page.Rules {
		page.Rules[i], page.Next = shown(receipt), receipt.Seq
	}
	if fleet, ok := h.store.(Fleet); ok {
		page.Replicas, err = call(ctx, h, func(ctx context.Context) (n replicas, err error) {
			n.Known, n.Current, err = fleet.Replicas(ctx)
			return n, err
		})
	}
	return http.StatusOK, page, err
}

// read returns up to limit rules whose Seq is greater than after.
func (h *handler) read(ctx context.Context, after uint64, limit int) ([]Receipt, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	p := &page{stop: stop, limit: limit, last: after, rules: []Receipt{}}
	_, err := call(ctx, h, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, h.store.Follow(ctx, after, p.add, func(time.Time) { p.finish() })
	})
	if rules, ok := p.result(); ok {
		return rules, nil
	}
	if err == nil {
		err = errors.New("Follow returned before it had given all rules")
	}
	return nil, err
}

// call calls a function of the store, which may hang or panic.
func call[T any](ctx context.Context, h *handler, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(withLogger(ctx, h.list.Logger), storeTimeout)
	defer cancel()
	select {
	case h.calls <- struct{}{}:
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("%d earlier calls have not returned: %w", maxCalls, ctx.Err())
	}
	return bounded.Call(ctx, func(ctx context.Context) (T, error) {
		defer func() { <-h.calls }()
		return f(ctx)
	})
}

// refuse returns the answer to a request that was not done, and logs an error of the
// store.
func (h *handler) refuse(r *http.Request, err error) *refusal {
	if refused, ok := errors.AsType[*refusal](err); ok {
		return refused
	}
	h.log(r, err)
	return &refusal{http.StatusServiceUnavailable, "temporarily_unavailable", "The store of the rules did not answer. Repeat the request: it does no harm if the rule is already there"}
}

// log records an error of the store.
func (h *handler) log(r *http.Request, err error) {
	level := slog.LevelError
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		level = slog.LevelInfo // The client has disconnected.
	}
	h.list.journal.log(h.list.Logger, level, "revocation: the handler's call of the store failed",
		slog.String("method", redact.Unverified(r.Method)), slog.String("cause", redact.Text(err.Error())))
}
