package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/koreauth/koreauth/internal/redact"
	"github.com/koreauth/koreauth/revocation"
)

// handlerStore is the revocation handler of an API.
type handlerStore struct {
	url    *url.URL
	client *http.Client
	token  func(context.Context) string // the token that is sent, or ""
}

func newHandlerStore(ctx context.Context, w world, c *cli.Command) (*handlerStore, error) {
	u, err := parseURL("--url", c.String("url"), "https://api.example.com/revocations")
	if err != nil {
		return nil, err
	}
	s := &handlerStore{url: u}
	if file := w.getenv("KORE_TOKEN_FILE"); file != "" {
		token, err := readToken(ctx, w, file)
		if err != nil {
			return nil, err
		}
		s.client = &http.Client{Transport: withToken(token)}
		s.token = func(context.Context) string { return token }
	} else {
		config, err := clientConfig(ctx, w, c, "")
		if err != nil {
			return nil, err
		}
		client, err := newClient(config)
		if err != nil {
			return nil, fmt.Errorf("%w\nor set KORE_TOKEN_FILE to the name of a file with a token", err)
		}
		s.client = client.HTTPClient(u.Host)
		s.token = func(ctx context.Context) string {
			token, _ := client.Token(ctx) // It is cached, or there is none.
			return token.Value
		}
	}
	// The token is for this host alone.
	s.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return s, nil
}

// withToken sends requests with a token.
type withToken string

func (t withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(t))
	return http.DefaultTransport.RoundTrip(r)
}

// send sends a request and decodes the answer into v.
func (s *handlerStore) send(ctx context.Context, method string, query url.Values, rule *revocation.Rule, v any) error {
	u := *s.url
	values := u.Query()
	for name := range query {
		values.Set(name, query.Get(name))
	}
	u.RawQuery = values.Encode()
	var body io.Reader
	if rule != nil {
		members := map[string]any{"issuer": rule.Issuer}
		for name, value := range map[string]string{"token": rule.Token, "client": rule.Client, "account": rule.Account, "subject": rule.Subject, "reason": rule.Reason} {
			if value != "" {
				members[name] = value
			}
		}
		if rule.Everything {
			members["everything"] = true
		}
		text, err := json.Marshal(members)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return usage("--url: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := s.client.Do(req)
	if err != nil {
		return &failure{tokenStatus(err), errors.New(redact.Text(err.Error(), s.token(ctx)))}
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err == nil && res.StatusCode < 300 {
		if err = json.Unmarshal(text, v); err == nil {
			return nil
		}
	}
	status := statusUnknown
	if res.StatusCode >= 400 && res.StatusCode <= 499 && res.StatusCode != http.StatusTooManyRequests {
		status = statusRejected
	}
	return &failure{status, fmt.Errorf("the API answered %d %s%s", res.StatusCode, http.StatusText(res.StatusCode), describe(text, s.token(ctx)))}
}

// describe returns what an answer says of an error, without the token.
func describe(text []byte, token string) string {
	var answer struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(text, &answer) != nil || answer.Error == "" {
		return ""
	}
	if answer.Description != "" {
		answer.Error += ": " + answer.Description
	}
	return ": " + redact.Text(answer.Error, token)
}

func (s *handlerStore) change(ctx context.Context, r revocation.Rule) (receipt revocation.Receipt, err error) {
	method := http.MethodPost
	if r.Lift {
		method = http.MethodDelete
	}
	err = s.send(ctx, method, nil, &r, &receipt)
	return receipt, err
}

func (s *handlerStore) dryRun(ctx context.Context, r revocation.Rule) (int, []string, error) {
	var answer struct {
		Tokens  int
		Clients []string
	}
	err := s.send(ctx, http.MethodPost, url.Values{"dry-run": {"true"}}, &r, &answer)
	return answer.Tokens, answer.Clients, err
}

// rulesPage is an answer of the handler to GET.
type rulesPage struct {
	Rules    []revocation.Receipt
	Next     uint64
	Replicas struct{ Known, Current int }
}

func (s *handlerStore) list(ctx context.Context) (receipts []revocation.Receipt, err error) {
	for after := uint64(0); ; {
		var page rulesPage
		if err := s.send(ctx, http.MethodGet, url.Values{"after": {fmt.Sprint(after)}, "limit": {"1000"}}, nil, &page); err != nil {
			return nil, err
		}
		receipts = append(receipts, page.Rules...)
		if page.Next <= after {
			return receipts, nil
		}
		after = page.Next
	}
}

func (s *handlerStore) wait(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		var page rulesPage
		if err := s.send(ctx, http.MethodGet, url.Values{"limit": {"1"}}, nil, &page); err != nil {
			return err
		}
		if page.Replicas.Known > 0 && page.Replicas.Current >= page.Replicas.Known {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return &failure{statusUnknown, fmt.Errorf("only %d of %d replicas have the rule so far", page.Replicas.Current, page.Replicas.Known)}
		}
	}
}
