#!/bin/sh
# Runs the curl commands of KORE's documentation. It gets a token, with the credentials in the form or, with AUTH=basic, in HTTP
# Basic. Then it calls the API with the token and prints the status and the body of the response.
set -eu
case ${AUTH:-form} in
form)
	answer=$(curl -fsS -X POST "$TOKEN_URL" \
		--header 'cache-control: no-cache' \
		--header 'content-type: application/x-www-form-urlencoded' \
		--data 'grant_type=client_credentials' \
		--data-urlencode "client_id=$CLIENT_ID" \
		--data-urlencode "client_secret=$CLIENT_SECRET")
	;;
basic)
	# RFC 6749 §2.3.1: both are form-encoded before they are put into the header.
	answer=$(curl -fsS -X POST "$TOKEN_URL" \
		--user "$(node -p 'encodeURIComponent(process.env.CLIENT_ID) + ":" + encodeURIComponent(process.env.CLIENT_SECRET)')" \
		--data 'grant_type=client_credentials')
	;;
esac
token=$(printf %s "$answer" | node -p 'JSON.parse(require("fs").readFileSync(0)).access_token')
curl -sS -w '\n%{http_code}\n' "$API_URL" --header "Authorization: Bearer $token" | {
	read -r body
	read -r status
	echo "$status $body"
}
