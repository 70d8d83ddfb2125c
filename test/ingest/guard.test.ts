import { request } from 'node:http';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ApiToken, SCOPES } from '../../src/api-token.ts';
import { INGEST_TOKEN, openIngest, problemIn, READ_TOKEN, type TestIngest, TOKEN, TOKENS } from '../support/ingest.ts';
import { APP_ID } from '../support/jobs.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

let corner: TestRedis;
let ingest: TestIngest;
let open: TestIngest;

beforeAll(async () => {
  corner = await openTestRedis();
  const env = { REDIS_URL: corner.url, QUEUE_PREFIX: corner.prefix };
  [ingest, open] = await Promise.all([openIngest(env), openIngest({ ...env, API_TOKENS: '' })]);
  await Promise.all([ingest.ready(), open.ready()]);
});

afterAll(async () => {
  await Promise.all([ingest.stop(), open.stop()]);
  await corner[Symbol.asyncDispose]();
});

type Scope = ApiToken['scopes'][number];

const ROUTES: readonly { method: string; path: string; body?: string; scope: Scope | undefined }[] = [
  { method: 'GET', path: '/healthz', scope: undefined },
  { method: 'GET', path: '/readyz', scope: undefined },
  { method: 'GET', path: '/openapi.json', scope: undefined },
  { method: 'GET', path: '/docs', scope: undefined },
  { method: 'GET', path: '/docs/static/swagger-ui.css', scope: undefined },
  { method: 'GET', path: '/metrics', scope: 'read' },
  { method: 'POST', path: '/v1/media', body: '{}', scope: 'ingest' },
  { method: 'GET', path: `/v1/media/${APP_ID}/x`, scope: 'read' },
  { method: 'GET', path: '/v1/dead-letters', scope: 'read' },
  { method: 'GET', path: `/v1/dead-letters/${APP_ID}/x`, scope: 'read' },
  { method: 'POST', path: '/v1/dead-letters/replay', body: '{}', scope: 'operate' },
  { method: 'POST', path: '/v1/dead-letters/discard', body: '{}', scope: 'operate' },
];

function send({ path, method, body }: (typeof ROUTES)[number], authorization: string | undefined): Promise<Response> {
  return fetch(ingest.url + path, {
    method,
    headers: {
      ...(authorization === undefined ? {} : { authorization }),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body }),
  });
}

test.each(ROUTES)('$method $path lets in whose token has the scope $scope', async (route) => {
  const held: [string, readonly Scope[]][] = [
    [TOKEN, SCOPES],
    [READ_TOKEN, ['read']],
    [INGEST_TOKEN, ['ingest']],
  ];
  for (const [token, scopes] of held) {
    const response = await send(route, `Bearer ${token}`);
    const allowed = route.scope === undefined || scopes.includes(route.scope);
    if (allowed) expect([401, 403]).not.toContain(response.status);
    else
      expect(await problemIn(response)).toMatchObject({
        status: 403,
        detail: expect.stringContaining(route.scope ?? ''),
      });
    await response.arrayBuffer().catch(() => undefined);
  }
  for (const header of [
    undefined,
    '',
    'Bearer',
    `Bearer ${TOKEN}x`,
    `Bearer ${TOKEN.slice(1)}`,
    `Basic ${TOKEN}`,
    TOKEN,
  ]) {
    const response = await send(route, header);
    if (route.scope === undefined) expect(response.status).not.toBe(401);
    else {
      expect(response.headers.get('www-authenticate')).toBe('Bearer');
      expect(await problemIn(response)).toMatchObject({ status: 401 });
    }
    await response.arrayBuffer().catch(() => undefined);
  }
});

test('the scheme is read in any case', async () => {
  expect((await ingest.ask('/metrics', { headers: { authorization: `bearer ${TOKEN}` } })).status).toBe(200);
});

test('who guesses is held up after a while, and a right token never', async () => {
  const corner2 = { REDIS_URL: corner.url, QUEUE_PREFIX: corner.prefix };
  await using own = await openIngest(corner2);
  const wrong = (): Promise<Response> => own.ask('/metrics', { headers: { authorization: 'Bearer wrong' } });
  const statuses: number[] = [];
  for (let n = 0; n < 60; n += 1) statuses.push((await wrong()).status);
  expect(new Set(statuses)).toEqual(new Set([401]));
  const lines = own
    .log()
    .split('\n')
    .filter((line) => line.includes('without a right token'));
  expect(lines.map((line) => JSON.parse(line))).toMatchObject([
    { address: '127.0.0.1', route: '/metrics', omitted: 0 },
  ]);
  const limited = await wrong();
  expect(Number(limited.headers.get('retry-after'))).toBeGreaterThan(0);
  expect(Number(limited.headers.get('retry-after'))).toBeLessThanOrEqual(60);
  expect(await problemIn(limited)).toMatchObject({ status: 429 });
  expect((await own.ask('/metrics')).status).toBe(200);
  expect((await own.ask('/healthz')).status).toBe(200);
});

describe('without tokens', () => {
  /** Under any name, which fetch does not send. */
  function under(host: string, path = '/v1/dead-letters'): Promise<number | undefined> {
    const { promise, resolve, reject } = Promise.withResolvers<number | undefined>();
    request({ port: open.port, path, headers: { host } }, (response) => {
      response.resume();
      resolve(response.statusCode);
    })
      .on('error', reject)
      .end();
    return promise;
  }

  test.each(['localhost', 'localhost:80', '127.0.0.1', '127.0.0.1:8080', '[::1]', '[::1]:8080', 'LOCALHOST'])(
    'a request to %s may do everything',
    async (host) => {
      expect(await under(host)).toBe(200);
    },
  );

  test.each([
    'example.com',
    'localhost.example.com:8080',
    '127.0.0.1.example.com',
    '10.0.0.1',
    '0.0.0.0',
    '[::2]',
    '::1',
  ])('a request to %s, as a web page may send it, is refused', async (host) => {
    for (const path of ['/v1/dead-letters', '/metrics', '/openapi.json', '/healthz']) {
      expect(await under(host, path)).toBe(403);
    }
  });

  test.each(['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', undefined])(
    'a body of type %s, which a web page may send anywhere, is not read',
    async (type) => {
      const body = new Blob([JSON.stringify({ all: true })]);
      const headers = type === undefined ? {} : { 'content-type': type };
      for (const path of ['/v1/media', '/v1/dead-letters/replay', '/v1/dead-letters/discard']) {
        const response = await fetch(open.url + path, { method: 'POST', body, headers });
        expect(await problemIn(response)).toMatchObject({ status: 415 });
      }
    },
  );

  test('no page of another origin is told that it may ask', async () => {
    const headers = { origin: 'https://example.com', 'access-control-request-method': 'POST' };
    const response = await fetch(`${open.url}/v1/media`, { method: 'OPTIONS', headers });
    expect(response.status).toBe(405);
    expect(response.headers.get('access-control-allow-origin')).toBeNull();
  });
});

test('no token is ever logged', () => {
  for (const token of TOKENS.split(',')) expect(ingest.log()).not.toContain(token.split(':').at(-1));
});
