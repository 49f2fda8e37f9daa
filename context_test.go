package koreauth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// The context of a guarded request has everything that the outer one has.
func TestContext_KeepsValues(t *testing.T) {
	type key struct{ n int }
	guard := koreauth.New(newTokenTable(), nil)
	ctx, cancel := context.WithCancelCause(context.WithValue(t.Context(), key{1}, "outer"))
	defer cancel(nil)
	between := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{2}, "between")))
		})
	}
	cause := errors.New("hung up")
	handler := chain(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "outer", r.Context().Value(key{1}))
		assert.Equal(t, "between", r.Context().Value(key{2}))
		assert.Nil(t, r.Context().Value(key{3}))
		assert.NoError(t, r.Context().Err())
		cancel(cause)
		<-r.Context().Done()
		assert.Equal(t, cause, context.Cause(r.Context()))
	}), guard.Wrap, between, replaceToken("b"), guard.Wrap)
	status, _ := serve(handler, bearerRequest("a").WithContext(ctx))
	assert.Equal(t, http.StatusOK, status)
}

// A context without claims has none, whatever it is derived from.
func TestContext_NoClaims(t *testing.T) {
	type key struct{}
	for name, ctx := range map[string]context.Context{
		"the background context": context.Background(),
		"another value":          context.WithValue(context.Background(), key{}, &koreauth.Claims{ClientID: "c"}),
		"nil claims":             koreauth.NewContext(context.Background(), nil),
	} {
		claims, ok := koreauth.FromContext(ctx)
		assert.False(t, ok, name)
		assert.Nil(t, claims, name)
	}
}

func TestContext_ClaimsOfInnermostGuard(t *testing.T) {
	guard, other := koreauth.New(newTokenTable(), nil), koreauth.New(koretest.Validator{Claims: &koreauth.Claims{ClientID: "other"}}, nil)
	for _, row := range []struct {
		name   string
		nested []func(http.Handler) http.Handler
		want   string
	}{
		{"one guard", []func(http.Handler) http.Handler{guard.Wrap}, "client-a"},
		{"another Middleware inside", []func(http.Handler) http.Handler{guard.Wrap, other.Wrap}, "other"},
		{"the first Middleware again", []func(http.Handler) http.Handler{guard.Wrap, other.Wrap, guard.Wrap}, "client-a"},
		{"the other Middleware again", []func(http.Handler) http.Handler{other.Wrap, guard.Wrap, other.WrapOptional}, "other"},
		{"NewContext inside", []func(http.Handler) http.Handler{guard.Wrap, injectClaims}, "injected"},
		{"a guard inside NewContext", []func(http.Handler) http.Handler{injectClaims, guard.Wrap}, "client-a"},
	} {
		_, body := serve(chain(whoami, row.nested...), bearerRequest("a"))
		assert.Equal(t, row.want, body, row.name)
	}
}

// Printing a context does not print the claims of NewContext, as it does not print
// those of a guard.
func TestContext_PrintsNoClaims(t *testing.T) {
	ctx := koreauth.NewContext(context.Background(), &koreauth.Claims{Subject: "the-subject", ClientOwner: "owner@example.com"})
	shown := fmt.Sprintf("%v %+v %#v %s %q", ctx, ctx, ctx, ctx, ctx)
	assert.Contains(t, shown, "context.Background.WithValue(koreauth)")
	assert.NotContains(t, shown, "the-subject")
	assert.NotContains(t, shown, "owner")
}

// WrapOptional lets a request through if it has no token. The error of such a
// request does not let another one through.
func TestMiddleware_OptionalNeedsItsOwnDecision(t *testing.T) {
	_, err := koreauth.New(newTokenTable(), nil).Authenticate(bearerRequest(""))
	var absent *koreauth.Error
	require.ErrorAs(t, err, &absent)
	for name, err := range map[string]error{
		"the error": err, "its reason": absent.Reason, "its class": absent.Class, "wrapped": fmt.Errorf("inner: %w", absent.Reason),
	} {
		validator := koreauth.New(koretest.Validator{Err: err}, nil)
		status, body := serve(validator.WrapOptional(whoami), bearerRequest("forged"))
		assert.Equal(t, http.StatusUnauthorized, status, "%s: %s", name, body)
		for place, options := range map[string]*koreauth.Options{
			"Sender": {Sender: &probe{err: err}}, "Options.Require": {Require: []koreauth.Requirement{&probe{err: err}}},
		} {
			guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{}}, options)
			status, body := serve(guard.WrapOptional(whoami), bearerRequest("forged"))
			assert.Equal(t, http.StatusUnauthorized, status, "%s from %s: %s", name, place, body)
		}
	}
}

// What a handler does to its copy of the request does not change what outer
// middleware has parsed.
func TestContext_KeepsParsedForm(t *testing.T) {
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	require.NoError(t, form.WriteField("name", "value"))
	require.NoError(t, form.Close())
	r := httptest.NewRequest(http.MethodPost, "/?x=y", &body)
	r.Header.Set("Authorization", "Bearer a")
	r.Header.Set("Content-Type", form.FormDataContentType())
	require.NoError(t, r.ParseMultipartForm(1<<20))
	values, parts := r.Form, r.MultipartForm
	koreauth.New(newTokenTable(), nil).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		assert.Equal(t, values, r.Form)
		assert.Nil(t, r.Trailer, "the length of the body is known, so it has no trailers")
		r.Form, r.PostForm, r.MultipartForm = url.Values{}, nil, nil
	})).ServeHTTP(httptest.NewRecorder(), r)
	assert.Equal(t, values, r.Form)
	assert.Same(t, parts, r.MultipartForm)
	assert.Equal(t, "value", r.PostForm.Get("name"))
}
