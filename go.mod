module github.com/koreauth/koreauth

go 1.26.0

// The library: parsing of keys, and the memory of verified tokens.
require (
	github.com/lestrrat-go/jwx/v2 v2.1.7
	github.com/maypok86/otter/v2 v2.4.0
)

// The command.
require (
	github.com/gofrs/flock v0.13.2
	github.com/urfave/cli/v3 v3.14.0
	golang.org/x/term v0.48.0
)

// Tests and examples only.
require (
	github.com/gorilla/mux v1.8.1
	github.com/stretchr/testify v1.12.1
)

// Indirect.
require (
	github.com/decred/dcrd/dcrec/secp256k1/v4 v4.4.1 // indirect
	github.com/goccy/go-json v0.10.6 // indirect
	github.com/lestrrat-go/blackmagic v1.0.4 // indirect
	github.com/lestrrat-go/httpcc v1.0.1 // indirect
	github.com/lestrrat-go/httprc v1.0.6 // indirect
	github.com/lestrrat-go/iter v1.0.2 // indirect
	github.com/lestrrat-go/option v1.0.1 // indirect
	github.com/segmentio/asm v1.2.1 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/crypto v0.53.0 // indirect
	golang.org/x/sys v0.50.0 // indirect
)
