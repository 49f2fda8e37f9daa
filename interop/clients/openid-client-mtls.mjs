// Gets a token that is bound to the client's certificate, calls the API with both, and prints the status and the body of the
// response.
import { readFileSync } from 'node:fs';
import * as openid from 'openid-client';
import { Agent, fetch } from 'undici';

const { ISSUER, TOKEN_URL, CLIENT_ID, CLIENT_SECRET, API_URL, CERT, KEY } = process.env;

const dispatcher = new Agent({
  connect: { cert: readFileSync(CERT), key: readFileSync(KEY), rejectUnauthorized: false }, // self-signed servers, on loopback
});
const config = new openid.Configuration({ issuer: ISSUER, token_endpoint: TOKEN_URL }, CLIENT_ID, CLIENT_SECRET);
config[openid.customFetch] = (url, options) => fetch(url, { ...options, dispatcher });
const { access_token: token } = await openid.clientCredentialsGrant(config);
const response = await openid.fetchProtectedResource(config, token, new URL(API_URL), 'GET');
console.log(response.status, await response.text());
