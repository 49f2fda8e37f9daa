// Finds the token endpoint by discovery, gets a token with the client-credentials grant, calls the API with it, and prints the
// status and the body of the response.
import * as openid from 'openid-client';

const { ISSUER, CLIENT_ID, CLIENT_SECRET, API_URL } = process.env;

const config = await openid.discovery(new URL(ISSUER), CLIENT_ID, CLIENT_SECRET, undefined, {
  execute: [openid.allowInsecureRequests], // http, on loopback
});
const { access_token: token } = await openid.clientCredentialsGrant(config);
const response = await openid.fetchProtectedResource(config, token, new URL(API_URL), 'GET');
console.log(response.status, await response.text());
