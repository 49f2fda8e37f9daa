package revocation_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/revocation"
)

const realm = "https://keycloak.example.com/realms/KORE-CIDP"

// waitFor waits until a list has a rule of its store, for examples.
func waitFor(list *revocation.List, seq uint64) {
	for list.Status().Seq < seq || list.Status().Current.IsZero() {
		time.Sleep(time.Millisecond)
	}
}

// A token works until it is revoked.
func Example() {
	issuer, err := koretest.NewIssuer(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer issuer.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	store := revocation.Memory() // several processes: File or koreredis.Revocations
	revoked := &revocation.List{}
	go revoked.Follow(ctx, store)
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer: issuer.URL(), Audience: []string{koretest.Audience}, Require: []koreauth.Requirement{revoked},
	})
	if err != nil {
		log.Fatal(err)
	}

	waitFor(revoked, 0)
	token := issuer.Valid()
	claims, err := validator.Validate(ctx, token)
	fmt.Println("before:", err)

	receipt, err := store.Append(ctx, revocation.Rule{Issuer: issuer.URL(), Client: claims.ClientID, Reason: "leaked key"})
	if err != nil {
		log.Fatal(err)
	}
	waitFor(revoked, receipt.Seq)
	_, err = validator.Validate(ctx, token)
	fmt.Println("after:", err)
	// Output:
	// before: <nil>
	// after: koreauth: invalid token: revoked: by client rule 1
}

// A list in a test or a tool needs no store.
func ExampleList_Apply() {
	revoked := &revocation.List{}
	if err := revoked.Apply(revocation.Rule{Issuer: realm, Token: "trrtcc:4711"}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(revoked.Check(nil, &koreauth.Claims{Issuer: realm, ID: "trrtcc:4711"}))
	fmt.Println(revoked.Check(nil, &koreauth.Claims{Issuer: realm, ID: "trrtcc:4712"}))

	fmt.Println(revoked.Apply(revocation.Rule{Issuer: realm}))
	// Output:
	// koreauth: invalid token: revoked: by token rule 0 (from List.Apply)
	// <nil>
	// rule 1 of 1: revocation: Rule selects no tokens: set Token, Client, Account or Subject, or Everything for all tokens of the issuer
}

// The zero List rejects all tokens until it was loaded.
func ExampleList_Check() {
	revoked := &revocation.List{}
	err := revoked.Check(nil, &koreauth.Claims{Issuer: realm, ID: "trrtcc:4711"})
	fmt.Println(errors.Is(err, koreauth.ErrUnavailable))
	// Output: true
}

// Follow ends when its context is done, and the list is still used.
func ExampleList_Follow() {
	ctx, cancel := context.WithCancel(context.Background())
	revoked := &revocation.List{}
	done := make(chan error)
	go func() { done <- revoked.Follow(ctx, revocation.Memory()) }()
	waitFor(revoked, 0)
	cancel()
	fmt.Println(<-done)
	fmt.Println(revoked.Check(nil, &koreauth.Claims{Issuer: realm, ID: "trrtcc:4711"}))
	// Output:
	// context canceled
	// <nil>
}

// A page for operators, or a metric.
func ExampleList_Status() {
	revoked := &revocation.List{}
	if err := revoked.Apply(revocation.Rule{Issuer: realm, Client: "kc_1"}, revocation.Rule{Issuer: realm, Client: "kc_1"}); err != nil {
		log.Fatal(err)
	}
	status := revoked.Status()
	fmt.Println(status.Entries, "selection, current:", time.Since(status.Current) < time.Second, status.Err)
	// Output: 1 selection, current: true <nil>
}

// A rule with Lift ends the rules before it.
func ExampleMemory() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	store := revocation.Memory()
	revoked := &revocation.List{}
	go revoked.Follow(ctx, store)

	claims := &koreauth.Claims{Issuer: realm, ID: "trrtcc:4711", ClientID: "kc_1", IssuedAt: time.Now()}
	for _, lift := range []bool{false, true} {
		receipt, err := store.Append(ctx, revocation.Rule{Issuer: realm, Client: "kc_1", Lift: lift})
		if err != nil {
			log.Fatal(err)
		}
		waitFor(revoked, receipt.Seq)
		fmt.Println(revoked.Check(nil, claims))
	}
	// Output:
	// koreauth: invalid token: revoked: by client rule 1
	// <nil>
}

// A transfer of money must not be late to notice a revocation. All other routes work
// for up to an hour without the store.
func ExampleFresh() {
	revoked := &revocation.List{StartEmpty: true}
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{ID: "trrtcc:4711"}}, nil)
	served := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})
	mux := http.NewServeMux()
	mux.Handle("POST /transfers", guard.Require(revocation.Fresh(revoked, 5*time.Second))(served))
	mux.Handle("GET /balance", guard.Wrap(served))

	for _, route := range []string{"POST /transfers", "GET /balance"} {
		var method, path string
		fmt.Sscan(route, &method, &path)
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("Authorization", "Bearer any")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(route, w.Code)
	}
	// Output:
	// POST /transfers 503
	// GET /balance 200
}

// All tokens that an issuer issued before it was repaired.
func ExampleRule() {
	repaired := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	revoked := &revocation.List{}
	if err := revoked.Apply(revocation.Rule{Issuer: realm, Everything: true, IssuedBefore: repaired}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(revoked.Check(nil, &koreauth.Claims{Issuer: realm, ID: "1", IssuedAt: repaired}))
	fmt.Println(revoked.Check(nil, &koreauth.Claims{Issuer: realm, ID: "2", IssuedAt: repaired.Add(time.Second)}))
	// Output:
	// koreauth: invalid token: revoked: by issuer rule 0 (from List.Apply)
	// <nil>
}

// A store completes a rule when it is appended.
func ExampleRule_Complete() {
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	rule, err := revocation.Rule{Issuer: realm, Client: "kc_1"}.Complete(at)
	fmt.Println(rule.IssuedBefore.Format(time.DateOnly), rule.Until.Format(time.DateOnly), err)
	_, err = revocation.Rule{Issuer: realm, Client: "kc_1", Token: "trrtcc:4711"}.Complete(at)
	fmt.Println(err)
	// Output:
	// 2026-01-31 2028-02-01 <nil>
	// revocation: Rule has Token and Client: set one of them
}

// A hash is all that a cache file, and a list that refills its store, has of a rule.
func ExampleRule_Hashed() {
	rule := revocation.Rule{Issuer: realm, Client: "kc_1", Reason: "leaked key"}
	fmt.Println(rule.Hashed().Hash)
	// Output: client:21c070ba5336bd3e6ebfed6bde052d1f
}

func ExampleReceipt() {
	receipt, err := revocation.Memory().Append(context.Background(), revocation.Rule{Issuer: realm, Client: "kc_1", By: "kc_admin"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(receipt.Seq, receipt.Rule.Client, receipt.Rule.IssuedBefore.Equal(receipt.At))
	// Output: 1 kc_1 true
}

// A health page that shows why revocations may come late.
func ExampleStatus() {
	health := func(s revocation.Status) string {
		switch {
		case s.Current.IsZero():
			return "not loaded"
		case s.Err != nil:
			return fmt.Sprintf("%d rules, not current: %v", s.Entries, s.Err)
		}
		return "current"
	}
	fmt.Println(health((&revocation.List{}).Status()))
	fmt.Println(health(revocation.Status{Entries: 7, Current: time.Now().Add(-time.Minute), Err: errors.New("connection refused")}))
	// Output:
	// not loaded
	// 7 rules, not current: connection refused
}

// everythingForbidden is a store that refuses to revoke all tokens of an issuer.
type everythingForbidden struct{ revocation.Store }

func (s everythingForbidden) Append(ctx context.Context, r revocation.Rule) (revocation.Receipt, error) {
	if r.Everything {
		return revocation.Receipt{}, errors.New("ask a colleague first")
	}
	return s.Store.Append(ctx, r)
}

func ExampleStore() {
	var store revocation.Store = everythingForbidden{revocation.Memory()}
	_, err := store.Append(context.Background(), revocation.Rule{Issuer: realm, Everything: true})
	fmt.Println(err)
	// Output: ask a colleague first
}

// How many replicas have all rules.
func ExampleFleet() {
	if fleet, ok := revocation.Memory().(revocation.Fleet); ok {
		known, current, err := fleet.Replicas(context.Background())
		fmt.Println(current, "of", known, err)
	}
	// Output: 1 of 1 <nil>
}
