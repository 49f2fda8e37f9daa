// Package interop tests koreauth with issuers, clients and routers of other
// projects. It is a separate module, so that its dependencies are never part of a
// user's build. README.md describes the tests.
package interop
