package interop_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	gorilla "github.com/gorilla/mux"
	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
	"github.com/labstack/echo/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// routers have the same routes with the same guard. GET /v1/ping and DELETE
// /v1/clients/{id} use the guard as middleware of the router, the latter also with
// a requirement. GET /open has no guard.
var routers = []struct {
	name  string
	build func(guard *koreauth.Middleware, mayDelete func(http.Handler) http.Handler) http.Handler
	// The status without a token if no path or no method matches. 401 means that
	// the router runs its middleware for such requests too.
	unmatchedPath, unmatchedMethod int
}{
	{"net/http", func(guard *koreauth.Middleware, mayDelete func(http.Handler) http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("GET /v1/ping", guard.Wrap(http.HandlerFunc(ping)))
		mux.Handle("DELETE /v1/clients/{id}", guard.Wrap(mayDelete(http.HandlerFunc(deleteClient))))
		mux.HandleFunc("GET /open", open)
		return mux
	}, 404, 405},
	{"gorilla/mux", func(guard *koreauth.Middleware, mayDelete func(http.Handler) http.Handler) http.Handler {
		r := gorilla.NewRouter()
		r.HandleFunc("/open", open).Methods("GET")
		v1 := r.PathPrefix("/v1").Subrouter()
		v1.Use(guard.Wrap)
		v1.HandleFunc("/ping", ping).Methods("GET")
		v1.Handle("/clients/{id}", mayDelete(http.HandlerFunc(deleteClient))).Methods("DELETE")
		return r
	}, 404, 404},
	{"chi", func(guard *koreauth.Middleware, mayDelete func(http.Handler) http.Handler) http.Handler {
		r := chi.NewRouter()
		r.Get("/open", open)
		r.Route("/v1", func(v1 chi.Router) {
			v1.Use(guard.Wrap)
			v1.Get("/ping", ping)
			v1.With(mayDelete).Delete("/clients/{id}", deleteClient)
		})
		return r
	}, 401, 401},
	{"echo", func(guard *koreauth.Middleware, mayDelete func(http.Handler) http.Handler) http.Handler {
		e := echo.New()
		e.GET("/open", echo.WrapHandler(http.HandlerFunc(open)))
		v1 := e.Group("/v1", echo.WrapMiddleware(guard.Wrap))
		v1.GET("/ping", echo.WrapHandler(http.HandlerFunc(ping)))
		v1.DELETE("/clients/:id", func(c *echo.Context) error {
			deleteClient(c.Response(), c.Request())
			return nil
		}, echo.WrapMiddleware(mayDelete))
		return e
	}, 401, 401},
	{"gin", func(guard *koreauth.Middleware, mayDelete func(http.Handler) http.Handler) http.Handler {
		gin.SetMode(gin.ReleaseMode)
		e := gin.New()
		e.HandleMethodNotAllowed = true
		e.GET("/open", gin.WrapF(open))
		v1 := e.Group("/v1", ginMiddleware(guard.Wrap))
		v1.GET("/ping", gin.WrapF(ping))
		v1.DELETE("/clients/:id", gin.WrapH(mayDelete(http.HandlerFunc(deleteClient))))
		return e
	}, 404, 405},
}

// ginMiddleware makes gin middleware of net/http middleware; gin's own WrapH adapts
// only handlers. The rest of the chain runs as the wrapped handler.
func ginMiddleware(wrap func(http.Handler) http.Handler) gin.HandlerFunc {
	return func(c *gin.Context) {
		passed := false
		wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			passed = true
			c.Request = r
			c.Next()
		})).ServeHTTP(c.Writer, c.Request)
		if !passed {
			c.Abort()
		}
	}
}

// deleteClient responds as ping does.
func deleteClient(w http.ResponseWriter, r *http.Request) { ping(w, r) }

func open(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

func TestRouters_GuardRoutes(t *testing.T) {
	issuer, err := koretest.NewIssuer(nil)
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}})
	require.NoError(t, err)
	guard := koreauth.New(validator, nil)
	mayDelete := guard.Require(koreauth.Grant("API Clients", koreauth.Delete))

	valid, ungranted := "Bearer "+issuer.Valid(), "Bearer "+issuer.Ungranted()
	client := issuer.Client().ID
	const (
		challenge    = `Bearer realm="api"`
		insufficient = `{"message":"User is not authorized to access this resource with an explicit deny","error":"Insufficient scope"}`
	)
	for _, router := range routers {
		t.Run(router.name, func(t *testing.T) {
			server := httptest.NewServer(router.build(guard, mayDelete))
			t.Cleanup(server.Close)
			a := &api{validator, server.URL}
			for _, row := range []struct {
				what, method, path, authorization string
				status                            int
				body, challenge                   string
			}{
				{"a valid token; the handler reads the claims", "GET", "/v1/ping", valid, 200, client, ""},
				{"a valid token with the required grant", "DELETE", "/v1/clients/7", valid, 200, client, ""},
				{"a token without the grant", "DELETE", "/v1/clients/7", ungranted, 403, insufficient,
					challenge + `, error="insufficient_scope", scope="API%20Clients:Delete"`},
				{"the same token where no grant is required", "GET", "/v1/ping", ungranted, 200, client, ""},
				{"no token", "GET", "/v1/ping", "", 401, noToken, challenge},
				{"no token where a grant is required", "DELETE", "/v1/clients/7", "", 401, noToken, challenge},
				{"an expired token", "GET", "/v1/ping", "Bearer " + issuer.Expired(), 403, invalidToken, challenge + `, error="invalid_token"`},
				{"a forged token", "DELETE", "/v1/clients/7", "Bearer " + issuer.Forged(), 403, invalidToken, challenge + `, error="invalid_token"`},
				{"a route without the guard", "GET", "/open", "", 204, "", ""},
			} {
				t.Run(row.what, func(t *testing.T) {
					resp, body := a.call(t, row.method, row.path, row.authorization)
					assert.Equal(t, row.status, resp.StatusCode)
					assert.Equal(t, row.body, body)
					assert.Equal(t, row.challenge, resp.Header.Get("WWW-Authenticate"))
				})
			}
			t.Run("no route matches", func(t *testing.T) {
				resp, _ := a.call(t, "GET", "/v1/nowhere", "")
				assert.Equal(t, router.unmatchedPath, resp.StatusCode, "path")
				resp, _ = a.call(t, "PUT", "/v1/ping", "")
				assert.Equal(t, router.unmatchedMethod, resp.StatusCode, "method")
			})
		})
	}
}

// A guard around the whole router covers unmatched routes too.
func TestRouters_WrappedWhole(t *testing.T) {
	issuer, err := koretest.NewIssuer(nil)
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}})
	require.NoError(t, err)
	guard := koreauth.New(validator, nil)
	pass := func(next http.Handler) http.Handler { return next }
	for _, router := range routers {
		t.Run(router.name, func(t *testing.T) {
			server := httptest.NewServer(guard.Wrap(router.build(guard, pass)))
			t.Cleanup(server.Close)
			a := &api{validator, server.URL}
			for _, path := range []string{"/v1/nowhere", "/open", "/v1/ping"} {
				resp, body := a.call(t, "GET", path, "")
				assert.Equal(t, http.StatusUnauthorized, resp.StatusCode, path)
				assert.Equal(t, noToken, body)
			}
			resp, _ := a.call(t, "GET", "/v1/nowhere", "Bearer "+issuer.Valid())
			assert.Equal(t, http.StatusNotFound, resp.StatusCode)
			resp, _ = a.call(t, "GET", "/v1/ping", "Bearer "+issuer.Valid())
			assert.Equal(t, http.StatusOK, resp.StatusCode)
		})
	}
}
