package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/koreauth/koreauth/internal/loopback"
)

// maxRequests is the maximum number of requests of one fetch.
const maxRequests = 3

// Keys fetches the JWK Set of one issuer. It remembers where the set is, so its
// methods must not be called concurrently.
type Keys struct {
	get       getter
	url       string // of the set; "": discovered
	issuer    string
	allowHTTP bool

	location   string    // the discovered URL of the set
	discovered time.Time // when
	suspect    bool      // the last fetch from location failed: discover first
	requests   int       // of the current fetch
}

// Config is what a Keys needs. One of URL and Issuer is required.
type Config struct {
	URL       string // of the JWK Set
	Issuer    string // whose metadata names the URL of the JWK Set
	Client    *http.Client
	Timeout   time.Duration // of one request
	AllowHTTP bool
}

// Faults lists what is wrong with the places of the keys, each with its remedy.
func (c Config) Faults() (faults []error) {
	switch {
	case c.URL != "":
		if fault := CheckURL(c.URL, c.AllowHTTP); fault != "" {
			faults = append(faults, fmt.Errorf("the URL of the keys %s", fault))
		}
	case c.Issuer != "":
		if fault := CheckIssuerURL(c.Issuer, c.AllowHTTP); fault != "" {
			faults = append(faults, fmt.Errorf("the Issuer %s; or set the URL of its keys", fault))
		}
	default:
		faults = append(faults, errors.New("RemoteKeySet has neither URL nor Issuer: set one"))
	}
	return faults
}

// New returns a Keys.
func New(c Config) *Keys {
	return &Keys{get: getter{own: c.Client, timeout: c.Timeout}, url: c.URL, issuer: c.Issuer, allowHTTP: c.AllowHTTP}
}

// Request is how a JWK Set is fetched, and what becomes of it.
type Request struct {
	ETag    func(location string) string // of the cached set, if it is from that URL; else ""
	NoCache bool                         // caches on the way must not answer
	Read    func(*Document) error        // reads a 200, or a 304 to the ETag; an error fails the fetch
}

// Fetch fetches the JWK Set. Its requests share connections, until Close.
func (k *Keys) Fetch(ctx context.Context, r Request) error {
	k.requests = 0
	k.get.open()
	if k.url != "" {
		return k.fetchFrom(ctx, k.url, r)
	}
	known := k.location
	var failed error
	if known != "" && !k.suspect {
		failed = k.fetchFrom(ctx, known, r)
		if failed == nil {
			return nil
		}
		k.suspect = true // The keys may have moved.
	}
	location, err := k.discover(ctx)
	switch {
	case err != nil && (known == "" || failed != nil):
		return errors.Join(failed, err)
	case err != nil: // The metadata may be gone, and the keys still there.
		location = known
	case location == known && failed != nil:
		return failed
	}
	if k.requests == maxRequests {
		return errors.Join(failed, errors.New("the keys have moved: the next fetch uses their new URL"))
	}
	failed = k.fetchFrom(ctx, location, r)
	k.suspect = failed != nil
	if failed == nil {
		return nil
	}
	return errors.Join(err, failed)
}

// Close ends a fetch: no connection and so no goroutine outlives it.
func (k *Keys) Close() { k.get.close() }

// FetchMoved fetches the JWK Set again if the metadata now names another URL for
// it. It does nothing if the URL was discovered less than age ago. It belongs to the
// fetch that Fetch has begun.
func (k *Keys) FetchMoved(ctx context.Context, age time.Duration, r Request) error {
	if k.url != "" || time.Since(k.discovered) < age || k.requests == maxRequests {
		return nil
	}
	known := k.location
	location, err := k.discover(ctx)
	if err != nil || location == known || k.requests == maxRequests {
		return err
	}
	return k.fetchFrom(ctx, location, r)
}

// fetchFrom fetches the JWK Set from a URL.
func (k *Keys) fetchFrom(ctx context.Context, location string, r Request) error {
	k.requests++
	with := conditions{r.ETag(location), r.NoCache}
	doc, err := k.get.get(ctx, location, with)
	if err != nil {
		return err
	}
	if doc.Status != http.StatusNotModified || with.etag == "" {
		if err := doc.OK(); err != nil {
			return err
		}
	}
	err = r.Read(doc)
	if err != nil && !isObject(doc.Body) {
		return outage{err}
	}
	return err
}

// discover reads the URL of the JWK Set from the metadata of the issuer, and
// remembers it.
func (k *Keys) discover(ctx context.Context) (string, error) {
	base := strings.TrimSuffix(k.issuer, "/")
	k.requests++
	doc, err := k.get.get(ctx, base+"/.well-known/openid-configuration", conditions{})
	if err == nil && doc.Status >= 400 && doc.Status <= 499 && k.requests < maxRequests {
		first := doc.OK()
		u, parseErr := url.Parse(base)
		if parseErr != nil {
			return "", parseErr
		}
		// RFC 8414 §3.1: between the host and the path of the issuer.
		k.requests++
		doc, err = k.get.get(ctx, u.Scheme+"://"+u.Host+"/.well-known/oauth-authorization-server"+u.EscapedPath(), conditions{})
		if err == nil && doc.Status != http.StatusOK {
			second := doc.OK()
			err = errors.Join(first, second)
			if Outage(first) || Outage(second) { // An issuer has its metadata at one place only.
				err = outage{err}
			}
			return "", err
		}
	}
	if err != nil {
		return "", err
	}
	if err := doc.OK(); err != nil {
		return "", err
	}
	location, err := k.readMetadata(doc)
	if err == nil {
		k.location, k.discovered = location, time.Now()
	}
	return location, err
}

// readMetadata returns "jwks_uri" (RFC 8414 §2).
func (k *Keys) readMetadata(doc *Document) (string, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(doc.Body, &members); err != nil || members == nil {
		return "", outage{fmt.Errorf("%s: the metadata is not a JSON object", doc.URL)}
	}
	var named, location string
	_ = json.Unmarshal(members["issuer"], &named) // With another type, it stays empty.
	if named != k.issuer {
		return "", fmt.Errorf(`%s: the metadata is that of the issuer %q: "issuer" must equal the configured one, %q (RFC 8414 §3.3)`, doc.URL, shorten(named), k.issuer)
	}
	_ = json.Unmarshal(members["jwks_uri"], &location) // With another type, it stays empty.
	if fault := CheckURL(location, k.allowHTTP); fault != "" {
		return "", fmt.Errorf("%s: jwks_uri %s", doc.URL, fault)
	}
	// The exception for loopback is for an issuer on this machine.
	if u, err := url.Parse(location); err == nil && u.Scheme == "http" && !k.allowHTTP {
		if issuer, err := url.Parse(k.issuer); err != nil || !loopback.Is(issuer.Hostname()) {
			return "", fmt.Errorf("%s: jwks_uri is http on this machine, but the issuer is not on this machine", doc.URL)
		}
	}
	return location, nil
}

// shorten cuts a text of the network for an error text.
func shorten(text string) string {
	const limit = 200
	if len(text) <= limit {
		return text
	}
	return text[:limit] + "…"
}
