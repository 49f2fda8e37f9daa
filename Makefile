FUZZTIME ?= 30s
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.8.0
PLATFORMS = linux/386 linux/arm windows/amd64 darwin/arm64

.PHONY: test quick check lint vuln platforms modules contrib browser fuzz bench interop replicas faults soak mutants mutants-check
# The packages, those first whose tests take longest. Many tests wait, so that four packages are tested at a time.
PACKAGES = . ./revocation ./internal/trials/faults ./...

test: ## all tests, with the race detector; needs a C compiler
	go test -race -shuffle=on -p 4 -parallel 8 $(PACKAGES)

quick: ## the short tests but the trials, without the race detector
	go test -short -shuffle=on -p 4 -parallel 8 $$(go list $(PACKAGES) | grep -v /internal/trials/)

check: lint vuln platforms modules test contrib browser ## what CI runs, except for interop

lint:
	@out=$$(gofmt -l .); [ -z "$$out" ] || { echo "run gofmt on: $$out"; exit 1; }
	go vet ./...
	go fix -diff ./...
	go run $(STATICCHECK) ./...

vuln: ## skipped only if the database cannot be fetched
	@out=$$(go run $(GOVULNCHECK) ./... 2>&1) && echo "$$out" || case "$$out" in \
	*"fetching vulnerabilities:"*) echo "govulncheck: skipped: the database cannot be fetched" ;; \
	*) echo "$$out"; exit 1 ;; esac

platforms: ## builds and vets for other platforms; tests the root package on 32 bits
	@set -e; for p in $(PLATFORMS); do echo "$$p"; \
	export CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/}; go build ./...; go vet ./...; done
	@case "$$(go env GOHOSTOS)/$$(go env GOHOSTARCH)" in \
	linux/amd64) CGO_ENABLED=0 GOARCH=386 go test . ;; \
	*) echo "tests on 386: skipped: they need linux/amd64" ;; esac

modules: ## builds and vets the modules in folders of this repository
	@set -e; for m in $$(find . -name go.mod -not -path ./go.mod -not -path '*/.*/*' -not -path '*/node_modules/*'); do \
	echo "$$m"; (cd $$(dirname $$m) && go build ./... && go vet ./...); done

contrib: ## tests the modules in contrib, with the race detector; needs redis-server
	@set -e; for m in contrib/*/go.mod; do echo "$$m"; (cd $$(dirname $$m) && go fix -diff ./... && go run $(STATICCHECK) ./... && \
	go test -race -shuffle=on -timeout 20m ./...); done

browser: ## tests the page of "koreauth issuer"; needs chromium, and npm for axe-core
	@command -v chromium >/dev/null || echo "browser: skipped: chromium is not installed"
	@cd browser && npm ci --silent --ignore-scripts --no-audit --no-fund || echo "browser: axe-core skipped: npm cannot fetch it"
	cd browser && go fix -diff ./... && go run $(STATICCHECK) ./... && go test -race -shuffle=on ./...

fuzz: ## each fuzz test for FUZZTIME
	set -e; for pkg in $$(go list ./...); do for f in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	go test -run '^$$' -fuzz "^$$f\$$" -fuzzminimizetime 10x -fuzztime $(FUZZTIME) $$pkg; done; done

bench: ## writes bench/RESULTS.md
	cd bench && go run .

interop: ## against Keycloak and oidc-provider; needs Java, Maven and Node.js
	interop/run.sh

replicas: ## a thousand replicas against Keycloak and Redis; writes docs/reports/replicas.md
	REPLICAS=1 interop/run.sh

faults: ## writes docs/reports/faults.md
	go test ./internal/trials/faults -update

soak: ## ten minutes without and ten with the race detector; writes docs/reports/soak.md
	go run ./internal/trials/soak -for 10m -write; go run -race ./internal/trials/soak -for 10m -write

mutants: ## a test must fail for every weakened check; writes docs/reports/mutants.md
	go run ./internal/trials/mutants

mutants-check: ## reports mutants that no longer match the source
	go run ./internal/trials/mutants -check
