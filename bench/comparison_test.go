package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/bench/subjects"
	"github.com/koreauth/koreauth/koretest"
)

// TestComparison tests the first rows of the table "How it compares" in the README.
// Only the words "accepted", "rejected", "fetch" and statuses are checked; the other
// cells say that it is up to the user's code.
func TestComparison(t *testing.T) {
	const flood = 5
	for _, row := range []struct {
		name string
		// result makes requests and returns a status or a number of fetches.
		result func(t *testing.T, issuer *koretest.Issuer, status func(token string) int) int
	}{
		{"first token of a new key", func(_ *testing.T, issuer *koretest.Issuer, status func(string) int) int {
			issuer.Rotate()
			return status(issuer.Valid())
		}},
		{"flood of unknown `kid`s", func(_ *testing.T, issuer *koretest.Issuer, status func(string) int) int {
			before := issuer.Requests(koretest.KeysEndpoint)
			for range flood {
				status(issuer.Forged())
			}
			return issuer.Requests(koretest.KeysEndpoint) - before
		}},
		{"issuer down, key not cached", func(_ *testing.T, issuer *koretest.Issuer, status func(string) int) int {
			issuer.Rotate()
			token := issuer.Valid()
			issuer.Behave(koretest.Down)
			return status(token)
		}},
		{"token without `exp`", func(t *testing.T, issuer *koretest.Issuer, status func(string) int) int {
			token, err := issuer.Mint(koretest.Token{Drop: []string{"exp"}})
			require.NoError(t, err)
			return status(token)
		}},
		{"Keycloak ID token for the API", func(t *testing.T, issuer *koretest.Issuer, status func(string) int) int {
			token, err := issuer.Mint(koretest.Token{Claims: map[string]any{"typ": "ID"}})
			require.NoError(t, err)
			return status(token)
		}},
	} {
		cells := comparisonRow(t, row.name)
		for i, name := range []string{"koreauth", "auth0 v3", "go-oidc", "golang-jwt + keyfunc"} {
			t.Run(row.name+": "+name, func(t *testing.T) {
				issuer, err := koretest.NewIssuer(nil)
				require.NoError(t, err)
				t.Cleanup(issuer.Close)
				guard, err := subjectNamed(t, name).Guard(t.Context(), subjects.Setup{
					Issuer: issuer.URL(), JWKSURL: issuer.KeysURL(), Audience: koretest.Audience, Algorithm: "RS256",
				})
				require.NoError(t, err)
				handler := guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
				status := func(token string) int {
					r := httptest.NewRequest(http.MethodGet, "/", nil)
					r.Header.Set("Authorization", "Bearer "+token)
					w := httptest.NewRecorder()
					handler.ServeHTTP(w, r)
					return w.Code
				}
				require.Equal(t, http.StatusOK, status(issuer.Valid()))

				result := row.result(t, issuer, status)

				word, _, _ := strings.Cut(strings.ReplaceAll(cells[i], ",", ""), " ")
				switch number, err := strconv.Atoi(word); {
				case strings.HasSuffix(cells[i], "fetch each"):
					assert.Equal(t, flood, result, cells[i])
				case err == nil:
					assert.Equal(t, number, result, cells[i])
				case word == "no":
					assert.Equal(t, 0, result, cells[i])
				case word == "accepted":
					assert.Equal(t, http.StatusOK, result, cells[i])
				case word == "rejected":
					assert.GreaterOrEqual(t, result, 400, cells[i])
				default:
					assert.Equal(t, "your", word, "a cell that this test does not understand: %s", cells[i])
				}
			})
		}
	}
}

// comparisonRow returns the cells of a row of the README, without its name.
func comparisonRow(t *testing.T, name string) []string {
	t.Helper()
	page, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	_, row, found := strings.Cut(string(page), "\n| "+name+" | ")
	require.True(t, found, "the README has no row %s", name)
	row, _, _ = strings.Cut(row, " |\n")
	cells := strings.Split(row, " | ")
	require.Len(t, cells, 4)
	return cells
}

func subjectNamed(t *testing.T, name string) subjects.Subject {
	t.Helper()
	for _, subject := range append([]subjects.Subject{subjects.Koreauth}, subjects.Peers...) {
		if subject.Name == name {
			return subject
		}
	}
	t.Fatalf("no subject is named %s", name)
	return subjects.Subject{}
}
