// Package koreauth guards HTTP APIs that accept KORE access tokens: JWTs of a
// Keycloak realm, obtained with the OAuth 2.0 client-credentials flow.
package koreauth
