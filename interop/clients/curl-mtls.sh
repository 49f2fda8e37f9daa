#!/bin/sh
# Gets a token that is bound to the client's certificate, calls the API with both, and prints the status and the body of the response.
set -eu
token=$(curl -fsS --cacert "$CA" --cert "$CERT" --key "$KEY" -X POST "$TOKEN_URL" \
	--data 'grant_type=client_credentials' \
	--data-urlencode "client_id=$CLIENT_ID" \
	--data-urlencode "client_secret=$CLIENT_SECRET" | node -p 'JSON.parse(require("fs").readFileSync(0)).access_token')
curl -sS --insecure --cert "$CERT" --key "$KEY" -w '\n%{http_code}\n' "$API_URL" --header "Authorization: Bearer $token" | {
	read -r body
	read -r status
	echo "$status $body"
}
