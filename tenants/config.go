package tenants

import (
	"net/http"
	"net/url"
	"reflect"
	"slices"

	"github.com/koreauth/koreauth"
)

// copied returns a Config whose lists the caller of Resolve cannot change.
func copied(c koreauth.Config) koreauth.Config {
	c.Audience, c.Algorithms, c.ClientIDs = slices.Clone(c.Audience), slices.Clone(c.Algorithms), slices.Clone(c.ClientIDs)
	c.Require = slices.Clone(c.Require)
	return c
}

// sameRules reports whether two Configs judge tokens alike. Objects are the same if they are
// one object: nobody may look into one that is in use.
func sameRules(a, b *koreauth.Config) bool {
	return slices.Equal(a.Audience, b.Audience) && slices.Equal(a.Algorithms, b.Algorithms) && slices.Equal(a.ClientIDs, b.ClientIDs) &&
		a.Leeway == b.Leeway && a.MaxAge == b.MaxAge && a.CacheSize == b.CacheSize && a.Logger == b.Logger && identical(a.Opaque, b.Opaque) &&
		slices.EqualFunc(a.Require, b.Require, func(a, b koreauth.Requirement) bool { return identical(a, b) })
}

// samePlace reports whether two Configs have their keys from one place.
func samePlace(a, b *koreauth.Config) bool {
	return a.Issuer == b.Issuer && a.JWKSURL == b.JWKSURL && a.KeyFile == b.KeyFile && a.DangerouslyAllowHTTP == b.DangerouslyAllowHTTP &&
		sameClient(a.HTTPClient, b.HTTPClient) && sameKeys(a.Keys, b.Keys)
}

// sameKeys reports whether two key sets are one, or fetch the same in the same way.
func sameKeys(a, b koreauth.KeySet) bool {
	x, isRemote := a.(*koreauth.RemoteKeySet)
	y, isRemote2 := b.(*koreauth.RemoteKeySet)
	if !isRemote || !isRemote2 || x == nil || y == nil {
		return identical(a, b)
	}
	return x.URL == y.URL && x.Issuer == y.Issuer && x.Timeout == y.Timeout && x.MinInterval == y.MinInterval && x.MaxAge == y.MaxAge &&
		x.MaxStale == y.MaxStale && x.File == y.File && x.DangerouslyAllowHTTP == y.DangerouslyAllowHTTP && x.Logger == y.Logger &&
		sameClient(x.HTTPClient, y.HTTPClient)
}

// sameClient reports whether two clients send requests in the same way.
func sameClient(a, b *http.Client) bool {
	if a == nil || b == nil || a == b {
		return a == b
	}
	return a.Timeout == b.Timeout && a.CheckRedirect == nil && b.CheckRedirect == nil && identical(a.Transport, b.Transport) && identical(a.Jar, b.Jar)
}

// identical reports whether two values are one. Those that cannot be compared are not.
func identical(a, b any) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return reflect.ValueOf(a).Comparable() && reflect.ValueOf(b).Comparable() && a == b
}

// keysOf returns the key set for a Config of an issuer, and whether it is that of its old
// tenant, which may be nil. It is a set of the tenant's own, so that its keys outlive a
// Config that judges tokens otherwise.
func keysOf(config *koreauth.Config, issuer *url.URL, old *tenant) (keys koreauth.KeySet, kept bool) {
	if old != nil && samePlace(config, &old.config) {
		return old.keys, true
	}
	var own *koreauth.RemoteKeySet
	switch given := config.Keys.(type) {
	case nil:
		own = &koreauth.RemoteKeySet{
			URL: config.JWKSURL, Issuer: config.Issuer, HTTPClient: config.HTTPClient, File: config.KeyFile,
			DangerouslyAllowHTTP: config.DangerouslyAllowHTTP, Logger: config.Logger,
		}
	case *koreauth.RemoteKeySet:
		if given.HTTPClient != nil {
			return given, false
		}
		own = &koreauth.RemoteKeySet{
			URL: given.URL, Issuer: given.Issuer, Timeout: given.Timeout, MinInterval: given.MinInterval, MaxAge: given.MaxAge,
			MaxStale: given.MaxStale, File: given.File, DangerouslyAllowHTTP: given.DangerouslyAllowHTTP, Logger: given.Logger,
		}
	default:
		return given, false
	}
	if own.HTTPClient == nil {
		own.HTTPClient = newClient(issuer)
	}
	return own, false
}
