// A node-oidc-provider on loopback whose access tokens are JWTs as in RFC 9068. The resource of a token request chooses the kind
// of token: https://api.example.com/rs256 and so on.
//
// POST /interop/rotate adds new keys before the old ones. POST /interop/drop removes all but the newest. Both create a new provider,
// because the library reads its keys only when it is created.
import { createServer } from 'node:http';
import { createPrivateKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import { Provider } from 'oidc-provider';

const { OIDC_PROVIDER_PORT: port, KORE_CLIENT_SECRET: secret } = process.env;
const issuer = `http://127.0.0.1:${port}`;
const callback = 'http://127.0.0.1/callback';
const api = 'https://api.example.com/';
const symmetric = randomBytes(32);

const kinds = {
  rs256: { jwt: { sign: { alg: 'RS256' } } },
  ps256: { jwt: { sign: { alg: 'PS256' } } },
  es256: { jwt: { sign: { alg: 'ES256' } } },
  eddsa: { jwt: { sign: { alg: 'EdDSA' } } },
  hs256: { jwt: { sign: { alg: 'HS256', key: symmetric } } },
  jwe: { jwt: { sign: { alg: 'RS256' }, encrypt: { alg: 'dir', enc: 'A256GCM', key: symmetric } } },
  opaque: { accessTokenFormat: 'opaque' },
  billing: { audience: 'billing' },
  brief: { accessTokenTTL: 4 },
};

const claims = {
  'account-id': 'CO1686726interop',
  'client-type': 'standard',
  'client-owner': 'owner@example.com',
  'ip-range': ['192.0.2.0/24'],
  'api-key': 'not-a-real-key',
  'twilio-sid': 'interopSID',
  scopes: {
    globalResources: [{ resourceName: 'API Clients', access: ['Read', 'Write'] }],
    products: ['SuperSIM', 'ProgrammableWireless'],
  },
};

// The RSA key is published without alg: RS256 and PS256 tokens are signed with the same one.
//
// The keys are exported as PEM first: in Node 20, exporting a key object can deadlock if garbage collection runs at the same time.
function newKeys() {
  const privateKeyEncoding = { type: 'pkcs8', format: 'pem' };
  return [
    generateKeyPairSync('rsa', { modulusLength: 2048, privateKeyEncoding }),
    generateKeyPairSync('ec', { namedCurve: 'P-256', privateKeyEncoding }),
    generateKeyPairSync('ed25519', { privateKeyEncoding }),
  ].map(({ privateKey }) => ({ ...createPrivateKey(privateKey).export({ format: 'jwk' }), use: 'sig' }));
}

function build(keys) {
  const provider = new Provider(issuer, {
    jwks: { keys },
    clients: [
      {
        client_id: 'kc_standard',
        client_secret: secret,
        grant_types: ['client_credentials'],
        response_types: [],
        redirect_uris: [],
        scope: 'sims:read sims:write',
      },
      {
        client_id: 'kc_portal',
        client_secret: secret,
        grant_types: ['authorization_code', 'refresh_token'],
        redirect_uris: [callback],
        token_endpoint_auth_method: 'client_secret_basic',
      },
    ],
    scopes: ['openid', 'offline_access', 'sims:read', 'sims:write'],
    cookies: { keys: [secret] },
    findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    // There is only one user, who is signed in without a login page.
    interactions: { url: (ctx, interaction) => `/interop/login/${interaction.uid}` },
    loadExistingGrant: async (ctx) => {
      const grant = new provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId });
      grant.addOIDCScope('openid offline_access sims:read sims:write');
      grant.addResourceScope(`${api}rs256`, 'sims:read sims:write');
      await grant.save();
      return grant;
    },
    issueRefreshToken: () => true,
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => false },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => `${api}rs256`,
        useGrantedResource: () => true,
        getResourceServerInfo: (ctx, resource) => ({
          scope: 'sims:read sims:write',
          audience: 'api-gw',
          accessTokenFormat: 'jwt',
          accessTokenTTL: 730 * 86400,
          ...kinds[resource.slice(api.length)],
        }),
      },
    },
    extraTokenClaims: () => claims,
    ttl: {
      AccessToken: (ctx, token) => token.resourceServer.accessTokenTTL,
      ClientCredentials: (ctx, token) => token.resourceServer.accessTokenTTL,
      Grant: 3600, IdToken: 3600, Interaction: 600, RefreshToken: 3600, Session: 3600,
    },
  });
  provider.on('server_error', (ctx, err) => console.error(err));
  return provider;
}

let keys = newKeys();
let provider = build(keys);

createServer(async (req, res) => {
  if (req.method === 'POST' && (req.url === '/interop/rotate' || req.url === '/interop/drop')) {
    keys = req.url === '/interop/rotate' ? [...newKeys(), ...keys] : keys.slice(0, 3);
    provider = build(keys);
    res.writeHead(204).end();
    return;
  }
  if (req.url.startsWith('/interop/login/')) {
    await provider.interactionFinished(req, res, { login: { accountId: 'person' } });
    return;
  }
  provider.callback()(req, res);
}).listen(port, '127.0.0.1');
