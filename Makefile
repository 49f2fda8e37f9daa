FUZZTIME ?= 30s
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.8.0

.PHONY: test check lint vuln fuzz bench interop faults soak mutants
test: ## every test; needs a C compiler for the race detector
	go test -race -shuffle=on ./...

check: lint vuln test ## what CI runs

lint:
	@out=$$(gofmt -l .); [ -z "$$out" ] || { echo "not gofmt's: $$out"; exit 1; }
	go vet ./...
	go fix -diff ./...
	go run $(STATICCHECK) ./...

vuln: ## skipped only where the database cannot be fetched
	@out=$$(go run $(GOVULNCHECK) ./... 2>&1) && echo "$$out" || case "$$out" in \
	*"fetching vulnerabilities:"*) echo "govulncheck: skipped, its database cannot be reached" ;; \
	*) echo "$$out"; exit 1 ;; esac

fuzz: ## each fuzz test for FUZZTIME
	set -e; for pkg in $$(go list ./...); do for f in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	go test -run '^$$' -fuzz "^$$f\$$" -fuzzminimizetime 10x -fuzztime $(FUZZTIME) $$pkg; done; done

bench: ## writes bench/RESULTS.md
	cd bench && go run .

interop: ## against Keycloak and oidc-provider; needs Java, Maven and Node.js
	interop/run.sh

faults: ## writes docs/reports/faults.md
	go test ./internal/trials/faults -update

soak: ## ten minutes without and ten with the race detector; writes docs/reports/soak.md
	go run ./internal/trials/soak -for 10m -write; go run -race ./internal/trials/soak -for 10m -write

mutants: ## every weakening of the code must fail a test; writes docs/reports/mutants.md
	go run ./internal/trials/mutants
