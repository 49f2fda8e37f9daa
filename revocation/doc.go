// Package revocation rejects tokens that were revoked before they expire.
//
// A [List] is a [koreauth.Requirement] for [koreauth.Config].Require. It has a copy
// of all rules in memory, so that a check asks nobody. It follows a [Store], which
// has the rules of all replicas: [Memory], [File], or Redis with contrib/koreredis.
//
// A [Rule] is appended to the store and never changed. It says which tokens are
// revoked: one token, or all tokens of a client, an account, a subject or an issuer
// that were issued at or before a moment. A rule with Lift ends earlier ones.
//
// Operators append rules with [Handler], programs with the Store. Package keycloak
// receives the not-before policy of Keycloak. The guide docs/revocation.md has the
// commands for an emergency.
package revocation
