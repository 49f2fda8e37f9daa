// Package interop runs koreauth against issuers, clients and routers that others
// wrote. It holds tests alone, in a module of its own, so that nothing they need
// enters a user's build. README.md says what runs and how.
package interop
