#!/bin/sh
# Starts Keycloak and node-oidc-provider on loopback, runs the tests of this module, and stops both servers.
# Arguments are passed to go test: ./run.sh -run TestKeycloak, ./run.sh -record.
set -eu
cd "$(dirname "$0")"
./fetch.sh

# The port is below those of outgoing connections. One of those could otherwise take it while Keycloak is stopped.
free_port() {
	node -e 'const listen = () => {
		const port = 20000 + Math.floor(Math.random() * 10000)
		const server = require("net").createServer().on("error", listen)
		server.listen(port, "127.0.0.1", () => { console.log(port); server.close() })
	}
	listen()'
}
secret() {
	od -An -N16 -tx1 /dev/urandom | tr -d ' \n'
}
export KEYCLOAK_PORT="${KEYCLOAK_PORT:-$(free_port)}" OIDC_PROVIDER_PORT="${OIDC_PROVIDER_PORT:-$(free_port)}" KEYCLOAK_TLS_PORT="${KEYCLOAK_TLS_PORT:-$(free_port)}"
# All secrets are made for this run.
export KORE_CLIENT_SECRET="$(secret)" KORE_USER_PASSWORD="$(secret)"

# Certificates of Keycloak and of two clients.
mkdir -p .cache/tls
for name in server client other; do
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$name" -addext "subjectAltName=IP:127.0.0.1" \
		-keyout ".cache/tls/$name.key" -out ".cache/tls/$name.pem" 2>.cache/openssl.log || { cat .cache/openssl.log && exit 1; }
done
proxies/fetch.sh || echo "some proxies are not tested"

keycloak/server.sh stop # in case an earlier run was killed
rm -rf .cache/keycloak/data .cache/keycloak/log
mkdir -p .cache/keycloak/data/import
cp keycloak/*-realm.json .cache/keycloak/data/import/

node oidc-provider/server.mjs >.cache/oidc-provider.log 2>&1 &
provider=$!
# Deleting the database deletes the private keys of the realms, so that nobody can sign with them later.
trap 'kill $provider 2>/dev/null || true; keycloak/server.sh stop; rm -rf .cache/keycloak/data' EXIT
trap 'exit 130' INT TERM
keycloak/server.sh start
tries=300
until curl -fs -o /dev/null "http://127.0.0.1:$OIDC_PROVIDER_PORT/jwks"; do
	tries=$((tries - 1))
	if [ $tries -eq 0 ] || ! kill -0 $provider 2>/dev/null; then
		cat .cache/oidc-provider.log >&2
		exit 1
	fi
	sleep 0.2
done

if [ -n "${REPLICAS-}" ]; then
	go run ./replicas
	exit
fi
go test -count=1 -shuffle=on -timeout=10m . "$@"
if [ $# -eq 0 ]; then
	go test -count=1 -timeout=2m ./mcp
fi
