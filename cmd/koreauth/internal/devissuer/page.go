package devissuer

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"html/template"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// maxBody limits the size of a request of the page.
const maxBody = 64 << 10

// policy lets the page load its own script and style sheet, and nothing else. Forms
// are sent by the script alone, so that no token gets into a URL.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

//go:embed page
var files embed.FS

var page = template.Must(template.ParseFS(files, "page/page.html"))

// servePage registers the page and what its script asks for.
func (i *Issuer) servePage(mux *http.ServeMux) {
	mux.Handle("GET /{$}", ofPage(i.serveHTML))
	for name, contentType := range map[string]string{
		"page.css": "text/css; charset=utf-8",
		"page.js":  "text/javascript; charset=utf-8",
		"icon.svg": "image/svg+xml",
	} {
		mux.Handle("GET /page/"+name, ofPage(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", contentType) // The machine may have another opinion.
			http.ServeFileFS(w, r, files, "page/"+name)
		}))
	}
	mux.Handle("POST /page/token", ofPage(answer(i.mint)))
	mux.Handle("POST /page/explain", ofPage(answer(i.explain)))
	mux.Handle("POST /page/endpoints", ofPage(answer(i.behave)))
}

// ofPage adds the headers of the page. Nothing of it is stored, because it may have
// tokens.
func ofPage(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next(w, r)
	})
}

// serveHTML serves the page, which shows how the endpoints behave now.
func (i *Issuer) serveHTML(w http.ResponseWriter, _ *http.Request) {
	i.mu.Lock()
	at, behaves := i.endpoints, i.behavior
	i.mu.Unlock()
	var b bytes.Buffer
	if err := page.Execute(&b, map[string]any{
		"URL":          i.issuer.URL(),
		"Audience":     koretest.Audience,
		"TokenURL":     i.issuer.TokenURL(),
		"BasicURL":     i.issuer.BasicTokenURL(),
		"Clients":      choices(clients, client.of),
		"Lifetimes":    choices(lifetimes, lifetime.of),
		"Faults":       choices(faults, fault.of),
		"Requirements": choices(requirements, requirement.of),
		"Endpoints":    choices(endpoints, endpoint.of),
		"Endpoint":     at,
		"Behaviors":    choices(behaviors, behavior.of),
		"Behavior":     behaves,
	}); err != nil {
		panic(err) // cannot happen: a test executes the template
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(b.Bytes())
}

// errUnknown is the error for a choice that the page does not offer.
var errUnknown = errors.New("devissuer: that cannot be chosen: reload the page")

// minting is a request for a token, by the IDs of the choices.
type minting struct {
	Client   string `json:"client"`
	Lifetime string `json:"lifetime"`
	Fault    string `json:"fault"`
	Requires string `json:"requires"`
	Claims   string `json:"claims"` // a JSON object of claims to add or replace; empty: none
}

// explaining is a request to explain a token.
type explaining struct {
	Token    string `json:"token"`
	Requires string `json:"requires"`
}

// explained is a token and how it is judged.
type explained struct {
	Token       string                `json:"token"`
	Explanation *koreauth.Explanation `json:"explanation"`
}

// mint makes a token and explains it.
func (i *Issuer) mint(ctx context.Context, m minting) (any, error) {
	by, known := chosen(clients, m.Client, client.of)
	life, ok := chosen(lifetimes, m.Lifetime, lifetime.of)
	wrong, found := chosen(faults, m.Fault, fault.of)
	if !known || !ok || !found {
		return nil, errUnknown
	}
	claims, err := readClaims(m.Claims)
	if err != nil {
		return nil, err
	}
	token, err := i.make(koretest.Token{ClientID: by.ID}, life, wrong, claims)
	if err != nil {
		return nil, err
	}
	return i.explain(ctx, explaining{token, m.Requires})
}

// make makes a token with a lifetime and a fault. The claims replace all others.
func (i *Issuer) make(t koretest.Token, life lifetime, wrong fault, claims map[string]json.RawMessage) (string, error) {
	t.Claims = map[string]any{"iss": i.issuer.URL()}
	if wrong.ID == forged {
		key, err := i.unpublished()
		if err != nil {
			return "", err
		}
		t.Key = key
	}
	if wrong.edit != nil {
		wrong.edit(&t)
	}
	if t.Age > 0 { // since its expiry
		t.Age += life.duration
	}
	t.Claims["exp"] = time.Now().Add(life.duration - t.Age).Unix()
	for name, value := range claims {
		t.Claims[name] = value
	}
	token, err := i.issuer.Mint(t)
	if err == nil && wrong.change != nil {
		token = wrong.change(token)
	}
	return token, err
}

// readClaims reads a JSON object, or nothing.
func readClaims(text string) (claims map[string]json.RawMessage, err error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	if err := json.Unmarshal([]byte(text), &claims); err != nil || claims == nil {
		return nil, errors.New(`devissuer: the claims must be a JSON object, such as {"account-id": "CO42"}`)
	}
	return claims, nil
}

// explain tells how an API with the issuer's URL and audience judges a token.
func (i *Issuer) explain(ctx context.Context, e explaining) (any, error) {
	required, ok := chosen(requirements, e.Requires, requirement.of)
	if !ok {
		return nil, errUnknown
	}
	return explained{e.Token, i.validator.Explain(ctx, e.Token, required.requirements...)}, nil
}

// behaving is a request to change how endpoints behave. All others become normal.
type behaving struct {
	Endpoints string `json:"endpoints"`
	Behavior  string `json:"behavior"`
}

func (i *Issuer) behave(_ context.Context, b behaving) (any, error) {
	at, ok := chosen(endpoints, b.Endpoints, endpoint.of)
	as, found := chosen(behaviors, b.Behavior, behavior.of)
	if !ok || !found {
		return nil, errUnknown
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.endpoints, i.behavior = at.ID, as.ID
	i.issuer.Behave(nil)
	i.issuer.Behave(as.behave, at.endpoints...)
	return b, nil
}

// answer returns a handler that reads a request in JSON and sends the answer of f.
func answer[Q any](f func(context.Context, Q) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var question Q
		status, err := read(w, r, &question)
		var v any
		if err == nil {
			if v, err = f(r.Context(), question); err != nil {
				status = http.StatusBadRequest
			}
		}
		if err != nil {
			v = map[string]string{"error": err.Error()}
		}
		body, err := json.Marshal(v)
		if err != nil {
			panic(err) // cannot happen: v has only texts and booleans
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write(body)
	}
}

// read reads the body of a request. The error does not tell what the body has.
func read(w http.ResponseWriter, r *http.Request, v any) (status int, err error) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return http.StatusUnsupportedMediaType, errors.New("devissuer: the body must be application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return http.StatusRequestEntityTooLarge, errors.New("devissuer: the text is too long: keep it under 60,000 characters")
	}
	if err == nil {
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.DisallowUnknownFields()
		if err = decoder.Decode(v); err == nil && decoder.More() {
			err = errors.New("more than one value")
		}
	}
	if err != nil {
		return http.StatusBadRequest, errors.New("devissuer: the body is not what the page sends: reload the page")
	}
	return http.StatusOK, nil
}
