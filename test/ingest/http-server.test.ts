import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { Readable } from 'node:stream';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { openIngest, problemIn, type TestIngest, TOKEN } from '../support/ingest.ts';
import { APP_ID, testJob } from '../support/jobs.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

let corner: TestRedis;
let ingest: TestIngest;
/** Cuts off what is late soon. */
let hasty: TestIngest;

beforeAll(async () => {
  corner = await openTestRedis();
  const env = { REDIS_URL: corner.url, QUEUE_PREFIX: corner.prefix };
  const limits = { requestTimeoutMs: 1_000, headersTimeoutMs: 500, checkEveryMs: 50, maxConnections: 100 };
  [ingest, hasty] = await Promise.all([openIngest(env), openIngest(env, { limits })]);
  await Promise.all([ingest.ready(), hasty.ready()]);
});

afterAll(async () => {
  await Promise.all([ingest.stop(), hasty.stop()]);
  await corner[Symbol.asyncDispose]();
});

const sockets: Socket[] = [];

afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});

interface Line {
  readonly socket: Socket;
  said(): string;
  /** Resolves when the server has closed the connection. */
  readonly closed: Promise<void>;
}

function dial({ port }: TestIngest): Line {
  // Half open: the server must end both halves by itself.
  const socket = createConnection({ port, host: '127.0.0.1', allowHalfOpen: true });
  sockets.push(socket);
  let text = '';
  socket.on('data', (chunk) => {
    text += chunk.toString();
  });
  const { promise: closed, resolve } = Promise.withResolvers<void>();
  socket.on('error', () => resolve());
  socket.on('end', resolve);
  socket.on('close', () => resolve());
  return { socket, said: () => text, closed };
}

const HEAD = `POST /v1/media HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${TOKEN}\r\ncontent-type: application/json\r\n`;

/** The JSON of the last answer that came over a line. */
function lastProblem(line: Line): Record<string, unknown> {
  const [, head = '', body = ''] =
    /(HTTP\/1\.1 (?:(?!HTTP\/1\.1)[\s\S])*?)\r\n\r\n(\{[^\n]*\})\s*$/.exec(line.said()) ?? [];
  expect(head).toMatch(/content-type: application\/problem\+json/i);
  expect(head).toMatch(/connection: close/i);
  return JSON.parse(body) as Record<string, unknown>;
}

describe('every problem is told as problem+json', () => {
  const big = JSON.stringify({ items: Array.from({ length: 900 }, () => 'x'.repeat(2_500)) });

  test.each<[string, string, RequestInit & { status: number }]>([
    ['a path that there is not', '/v2/media', { status: 404 }],
    ['a path that there is not, of /v1', '/v1', { status: 404 }],
    ['another method', '/v1/media', { method: 'GET', status: 405 }],
    ['another method with a body', '/v1/media', { method: 'PUT', body: '{}', status: 405 }],
    ['another method of a path with parts', `/v1/media/${APP_ID}/x`, { method: 'DELETE', status: 405 }],
    ['another method of what is open', '/healthz', { method: 'POST', body: 'x', status: 405 }],
    ['a method that hardly anybody knows', '/v1/media', { method: 'PROPFIND', status: 405 }],
    ['a path with a wrong escape', '/v1/media/%zz/x', { status: 400 }],
    ['a broken body', '/v1/media', { method: 'POST', body: '{"v":1,', status: 400 }],
    ['no body', '/v1/media', { method: 'POST', body: '', status: 400 }],
    ['a body with a prototype', '/v1/media', { method: 'POST', body: '{"__proto__":{}}', status: 400 }],
    ['a body of more than 2 MiB', '/v1/media', { method: 'POST', body: big, status: 413 }],
    [
      'more headers than it takes',
      '/healthz',
      { headers: Object.fromEntries(Array.from({ length: 70 }, (_, n) => [`x-${n}`, '1'])), status: 431 },
    ],
  ])('%s', async (_what, path, { status, ...init }) => {
    const headers = {
      ...(init.body === undefined ? {} : { 'content-type': 'application/json' }),
      ...(init.headers as object),
    };
    const problem = await problemIn(await ingest.ask(path, { ...init, headers }));
    expect(problem).toMatchObject({ type: 'about:blank', status });
  });

  test.each(['gzip', 'br', 'identity, gzip'])('a body in %s is refused before it is read', async (encoding) => {
    const response = await ingest.post('/v1/media', testJob(), { headers: { 'content-encoding': encoding } });
    expect(response.headers.get('accept-encoding')).toBe('identity');
    expect(await problemIn(response)).toMatchObject({
      status: 415,
      detail: expect.stringContaining('Content-Encoding'),
    });
  });

  test.each(['identity', 'Identity', ''])('a body in %j is taken', async (encoding) => {
    const response = await ingest.post('/v1/media', testJob(), { headers: { 'content-encoding': encoding } });
    expect(response.status).toBe(202);
  });

  test('a 405 says which methods there are', async () => {
    const response = await ingest.ask(`/v1/media/${APP_ID}/x`, { method: 'POST', body: '{}' });
    expect(response.headers.get('allow')).toBe('GET, HEAD');
  });

  test.each([
    [
      'a body that does not say how long it is',
      `${HEAD}transfer-encoding: chunked\r\n\r\n300000\r\n${'x'.repeat(0x300000)}\r\n0\r\n\r\n`,
      413,
    ],
    ['no HTTP', 'hello\r\n\r\n', 400],
    ['no host', 'GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n', 400],
    ['a TRACE', 'TRACE /v1/media HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n', 405],
    ['a wish that nobody knows', `${HEAD}expect: tea\r\ncontent-length: 1\r\nconnection: close\r\n\r\n{`, 400],
    ['a TLS handshake', Buffer.from('16030100c8010000c40303', 'hex'), 400],
    ['two lengths', `${HEAD}content-length: 1\r\ncontent-length: 2\r\n\r\nxx`, 400],
    ['a length and chunks', `${HEAD}content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`, 400],
    ['headers of 20 kB', `${HEAD}x: ${'y'.repeat(20_000)}\r\n\r\n`, 431],
    ['garbage behind a request', 'GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n\u0000\u0001garbage\r\n\r\n', 400],
  ])('%s, and the connection ends', async (_what, bytes, status) => {
    const line = dial(ingest);
    line.socket.write(bytes);
    await line.closed;
    expect(lastProblem(line)).toMatchObject({ type: 'about:blank', status });
  });
});

describe('request ids', () => {
  test.each(['abc', 'A-z_0.9', 'x'.repeat(64)])('%s is kept, and told in the log', async (id) => {
    const response = await ingest.post('/v1/media', '{', { headers: { 'x-request-id': id } });
    expect(await problemIn(response)).toMatchObject({ requestId: id });
    await eventually(() => (ingest.log().includes(`"requestId":"${id}"`) ? true : undefined));
  });

  test.each(['', 'a b', 'x'.repeat(65), 'a\u00e9', '"', 'a/b'])('%j is replaced', async (id) => {
    const response = await ingest.ask('/healthz', { headers: { 'x-request-id': id } });
    expect(response.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/);
  });
});

describe('slow clients', () => {
  /** Sends a byte at a time until the server ends it. */
  async function drip(line: Line, text: string): Promise<void> {
    let at = 0;
    const timer = setInterval(() => {
      if (line.socket.writable) line.socket.write(text[at++ % text.length] ?? 'x');
    }, 40);
    await line.closed;
    clearInterval(timer);
  }

  test('one that drips its headers is cut off', async () => {
    const line = dial(hasty);
    line.socket.write('GET /healthz HTTP/1.1\r\n');
    await drip(line, 'x-header: y\r\n');
    expect(lastProblem(line)).toMatchObject({ status: 408 });
  });

  test('one that drips its body is cut off', async () => {
    const line = dial(hasty);
    line.socket.write(`${HEAD}content-length: 1000000\r\n\r\n`);
    await drip(line, ' ');
    expect(lastProblem(line)).toMatchObject({ status: 408 });
  });

  test('one that says nothing at all is cut off', async () => {
    const line = dial(hasty);
    await line.closed;
    expect(lastProblem(line)).toMatchObject({ status: 408 });
  });

  test('many that do nothing keep nobody out', async () => {
    const lines = Array.from({ length: 500 }, () => dial(ingest));
    for (const { socket } of lines.slice(0, 250)) socket.write(`${HEAD}content-length: 10\r\n\r\n`);
    expect((await ingest.post('/v1/media', testJob())).status).toBe(202);
  });

  test('connections beyond the limit are closed at once, and later there is room again', async () => {
    const lines = Array.from({ length: 150 }, () => dial(hasty));
    await Promise.all(lines.map(({ closed }) => closed));
    expect(lines.some((line) => line.said() === '')).toBe(true);
    await eventually(async () => ((await hasty.ask('/healthz').catch(() => undefined))?.ok ? true : undefined));
  });

  test('who goes away in the middle of a body does no harm', async () => {
    const line = dial(ingest);
    line.socket.write(`${HEAD}content-length: 100\r\n\r\n{`);
    await new Promise((resolve) => line.socket.once('connect', resolve));
    line.socket.resetAndDestroy();
    expect((await ingest.post('/v1/media', testJob())).status).toBe(202);
    expect(ingest.log()).not.toContain('unexpected fault');
  });
});

describe('once it stops', () => {
  /** Ends the work on /held. */
  let release: () => void;
  let own: TestIngest;

  beforeEach(async () => {
    const { promise: held, resolve } = Promise.withResolvers<void>();
    release = resolve;
    own = await openIngest(
      // Longer than this test may take.
      { REDIS_URL: corner.url, QUEUE_PREFIX: corner.prefix, SHUTDOWN_GRACE_SECONDS: '600' },
      {
        limits: { requestTimeoutMs: 500, headersTimeoutMs: 500 },
        plugins: [
          async (app) => {
            app.get('/held', async () => {
              await held;
              return 'done';
            });
            app.get('/endless', async (_request, reply) => reply.send(new Readable({ read: fillUp })));
          },
        ],
      },
    );
    await own.ready();
  });

  afterEach(async () => {
    release();
    await own.stop();
  });

  function fillUp(this: Readable): void {
    this.push(Buffer.alloc(65_536));
  }

  async function send(text: string): Promise<Line> {
    const line = dial(own);
    await once(line.socket, 'connect');
    line.socket.write(text);
    return line;
  }

  test.each([
    ['has sent nothing', ''],
    ['has sent half a header', 'GET /healthz HTTP/1.1\r\nhost'],
    ['sends a body slowly', `${HEAD}content-length: 999\r\n\r\n{`],
    ['sends chunks slowly', `${HEAD}transfer-encoding: chunked\r\n\r\n1\r\n{`],
    ['sends, without a token, a body slowly', 'POST /v1/media HTTP/1.1\r\nhost: x\r\ncontent-length: 999\r\n\r\n{'],
    ['does not take its answer', 'GET /endless HTTP/1.1\r\nhost: x\r\n\r\n'],
  ])('one that %s does not hold it up', async (_what, text) => {
    const line = await send(text);
    if (text.includes('/endless')) line.socket.pause();
    await own.ask('/healthz');
    await own.stop();
  });

  test('a request that has come whole is answered, however late it is', async () => {
    const worked = await send('GET /held HTTP/1.1\r\nhost: x\r\n\r\n');
    const slow = await send('GET /healthz HTTP/1.1\r\nhost');
    await own.ask('/healthz');
    const stopped = own.stop();
    // The one is cut, and with it all that would be.
    await slow.closed;
    release();
    await worked.closed;
    expect(worked.said()).toMatch(/^HTTP\/1\.1 200[\s\S]*done$/);
    await stopped;
  });
});

test('who was refused in the middle of a body does not hold up the end', async () => {
  const own = await openIngest({
    REDIS_URL: corner.url,
    QUEUE_PREFIX: corner.prefix,
    // Longer than this test may take.
    SHUTDOWN_GRACE_SECONDS: '600',
  });
  await own.ready();
  const response = await own.post('/v1/media', 'x'.repeat(1_500_000), { headers: { authorization: 'Bearer wrong' } });
  expect(response.status).toBe(401);
  await response.arrayBuffer();
  await own.stop();
});
