import { createServer, type IncomingHttpHeaders, type RequestListener } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { S3Client, type S3ClientConfig } from '@aws-sdk/client-s3';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { createDirectPut, type PutObject, putBySdk } from '../../src/store/put-object.ts';
import { createPutRoute } from '../../src/store/put-route.ts';
import { DEFAULT_S3_TIMEOUTS } from '../../src/store/s3-client.ts';
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts';
import { openEmbeddedBackend, type S3Backend, sha256Of, someBytes, wholeObject } from '../support/store.ts';

const never = new AbortController().signal;
const BUCKET = 'bucket';
const HEADERS = { 'x-amz-content-sha256': sha256Of(Buffer.alloc(0)), 'content-length': '0' };

let backend: S3Backend;

beforeAll(async () => {
  backend = await openEmbeddedBackend();
});

afterAll(() => backend[Symbol.asyncDispose]());

function clientWith(config: S3ClientConfig): S3Client {
  const client = new S3Client({
    region: 'eu-central-1',
    credentials: { accessKeyId: 'id', secretAccessKey: 'secret' },
    requestChecksumCalculation: 'WHEN_REQUIRED',
    ...config,
  });
  onTestFinished(() => client.destroy());
  return client;
}

interface Direct {
  readonly put: PutObject;
  readonly proxy: FaultProxy;
  readonly client: S3Client;
}

/** Writes to the embedded server, past a proxy. */
async function openDirect(config: S3ClientConfig = {}): Promise<Direct> {
  const proxy = await startFaultProxy(backend.endpoint);
  const client = clientWith({ endpoint: proxy.endpoint, forcePathStyle: true, ...config });
  const timeouts = DEFAULT_S3_TIMEOUTS;
  const { bucket } = backend;
  const direct = createDirectPut({ client, bucket, timeouts, connections: 4, needsMd5: () => false });
  onTestFinished(async () => {
    await direct.close();
    await proxy[Symbol.asyncDispose]();
  });
  return { put: direct.put, proxy, client };
}

/** The headers that the SDK adds for its own retries. */
const OF_SDK_RETRIES = 'amz-sdk-request';

describe('the route', () => {
  test.each([
    ['virtual host', {}, 'https://bucket.s3.eu-central-1.amazonaws.com', '/a/b%3Dc'],
    ['path style', { forcePathStyle: true }, 'https://s3.eu-central-1.amazonaws.com', '/bucket/a/b%3Dc'],
    ['another store', { endpoint: 'http://store.test:9000' }, 'http://bucket.store.test:9000', '/a/b%3Dc'],
    ['an address', { endpoint: 'http://127.0.0.1:9000' }, 'http://127.0.0.1:9000', '/bucket/a/b%3Dc'],
    [
      'a store below a path',
      { endpoint: 'https://store.test/s3/', forcePathStyle: true },
      'https://store.test',
      '/s3/bucket/a/b%3Dc',
    ],
    [
      'dual stack',
      { useDualstackEndpoint: true },
      'https://bucket.s3.dualstack.eu-central-1.amazonaws.com',
      '/a/b%3Dc',
    ],
  ] as const)('is that of the SDK: %s', async (_what, config, origin, path) => {
    const route = await createPutRoute(clientWith(config), BUCKET)(never);
    expect(route?.origin.origin).toBe(origin);
    const signed = await route?.sign('a/b=c', { ...HEADERS });
    expect(signed?.path).toBe(path);
    expect(signed?.headers['host']).toBe(new URL(origin).host);
    expect(signed?.headers['authorization']).toMatch(
      /^AWS4-HMAC-SHA256 Credential=id\/\d{8}\/eu-central-1\/s3\/aws4_request, /,
    );
  });

  test('is the SDK’s to go for a bucket that wants more than a plain signature', async () => {
    const client = clientWith({});
    // As S3 Express is asked, once it has given a session.
    client.middlewareStack.add(
      (next) => (args) => {
        (args.request as { headers: Record<string, string> }).headers['x-amz-s3session-token'] = 'session';
        return next(args);
      },
      { step: 'build' },
    );
    expect(await createPutRoute(client, BUCKET)(never)).toBeUndefined();
  });

  test('is found anew after there were no credentials', async () => {
    let isKnown = false;
    const client = clientWith({
      credentials: async () => {
        if (!isKnown) throw new Error('no credentials yet');
        return { accessKeyId: 'late', secretAccessKey: 'secret' };
      },
    });
    const findRoute = createPutRoute(client, BUCKET);
    expect(await findRoute(never)).toBeUndefined();
    isKnown = true;
    const route = await findRoute(never);
    expect((await route?.sign('k', { ...HEADERS }))?.headers['authorization']).toContain('Credential=late/');
  });
});

describe('credentials', () => {
  test('of a session are sent and signed with their token', async () => {
    const { put, proxy } = await openDirect({
      credentials: { accessKeyId: 'id', secretAccessKey: 'secret', sessionToken: 'of-the-session' },
    });
    await put(wholeObject(someBytes(10)), false, never);
    const [{ headers } = { headers: {} as Record<string, string> }] = proxy.seen;
    expect(headers['x-amz-security-token']).toBe('of-the-session');
    expect(headers['authorization']).toContain('x-amz-security-token');
    expect(headers).not.toHaveProperty(OF_SDK_RETRIES);
  });

  test('that change are asked for again once they have run out', async () => {
    let asked = 0;
    const { put, proxy } = await openDirect({
      credentials: async () => {
        asked += 1;
        const expiration = new Date(Date.now() + (asked === 1 ? 1_000 : 3_600_000));
        return { accessKeyId: `id-${asked}`, secretAccessKey: 'secret', expiration };
      },
    });
    for (let write = 0; write < 3; write += 1) await put(wholeObject(someBytes(10)), false, never);
    const used = proxy.seen.map(({ headers }) => /Credential=([^/]+)/.exec(headers['authorization'] ?? '')?.[1]);
    expect(used.at(-1)).toBe(`id-${asked}`);
    expect(asked).toBeGreaterThan(1);
    expect(proxy.seen.every(({ headers }) => !(OF_SDK_RETRIES in headers))).toBe(true);
  });
});

describe('what is not a success', () => {
  test('is the first try of the SDK, which makes the others', async () => {
    const { put, proxy } = await openDirect();
    proxy.arm('PutObject', { type: 'answer', status: 503, code: 'SlowDown' }, 1);
    const object = wholeObject(someBytes(1_000));
    await put(object, true, never);
    expect(proxy.seen.map(({ headers }) => OF_SDK_RETRIES in headers)).toEqual([false, true]);
    expect(proxy.seen[1]?.headers[OF_SDK_RETRIES]).toContain('attempt=2');
    for (const { headers } of proxy.seen) {
      expect(headers).toMatchObject({
        'if-none-match': '*',
        'content-length': '1000',
        'content-type': object.contentType,
        'x-amz-content-sha256': object.digest.sha256,
        'x-amz-meta-archived-at': object.metadata['archived-at'],
        'x-amz-meta-sha256': object.digest.sha256,
      });
    }
  });

  test('leaves the body in some socket’s hands, whoever succeeds then', async () => {
    const { put, proxy } = await openDirect();
    let released = 0;
    const onReleased = (): void => {
      released += 1;
    };
    await put(wholeObject(someBytes(1_000), { onReleased }), true, never);
    expect(released).toBe(1);
    proxy.arm('PutObject', { type: 'answer', status: 503, code: 'SlowDown' }, 1);
    await put(wholeObject(someBytes(1_000), { onReleased }), true, never);
    proxy.arm('PutObject', { type: 'lose-answer' }, 1);
    await put(wholeObject(someBytes(1_000), { onReleased }), true, never);
    expect(released).toBe(1);
  });

  test('leaves the body in the hands of a socket that was answered before it was sent', async () => {
    // More than the kernel holds for a reader that does not read.
    const body = Buffer.alloc(64 * 2 ** 20);
    const server = createTcpServer((socket) => {
      socket.on('error', () => undefined);
      socket.once('data', () => {
        socket.pause();
        socket.write('HTTP/1.1 200 OK\r\ncontent-length: 0\r\netag: "0"\r\n\r\n');
      });
      onTestFinished(() => void socket.destroy());
    });
    const listening = Promise.withResolvers<void>();
    server.listen(0, '127.0.0.1', listening.resolve);
    await listening.promise;
    onTestFinished(() => void server.close());
    const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const client = clientWith({ endpoint, forcePathStyle: true });
    const timeouts = DEFAULT_S3_TIMEOUTS;
    const direct = createDirectPut({ client, bucket: BUCKET, timeouts, connections: 1, needsMd5: () => false });
    onTestFinished(() => direct.close());
    let released = 0;
    const onReleased = (): void => {
      released += 1;
    };
    expect(await direct.put(wholeObject(body, { onReleased }), true, never)).toBe('0');
    expect(released).toBe(0);
  });

  test('sets the clock by which this and all further requests are signed', async () => {
    const store = await startStoreAhead(3_600_000);
    const client = clientWith({ endpoint: store.endpoint, forcePathStyle: true });
    const timeouts = DEFAULT_S3_TIMEOUTS;
    const direct = createDirectPut({ client, bucket: BUCKET, timeouts, connections: 1, needsMd5: () => false });
    onTestFinished(() => direct.close());
    for (let write = 0; write < 3; write += 1) await direct.put(wholeObject(someBytes(10)), true, never);
    expect(store.answers).toEqual([
      { status: 403, bySdk: false },
      { status: 200, bySdk: true },
      { status: 200, bySdk: false },
      { status: 200, bySdk: false },
    ]);
  });

  test.each([
    [301, 'PermanentRedirect'],
    [307, 'TemporaryRedirect'],
    [400, 'AuthorizationHeaderMalformed'],
  ])('is not followed elsewhere: %i %s costs one request, as it costs the SDK', async (status, code) => {
    const { put, proxy, client } = await openDirect();
    const headers = { 'x-amz-bucket-region': 'eu-west-1', location: `${proxy.endpoint}/elsewhere` };
    proxy.arm('PutObject', { type: 'answer', status, code, headers });
    for (const way of [put, putBySdk(client, backend.bucket)]) {
      const before = proxy.seen.length;
      for (let write = 0; write < 2; write += 1) {
        await expect(way(wholeObject(someBytes(10)), true, never)).rejects.toMatchObject({ name: code });
      }
      expect(proxy.seen.length - before).toBe(2);
    }
  });

  test('is not read on where it has no end', async () => {
    const { put, proxy } = await openDirect();
    proxy.arm('PutObject', { type: 'answer', status: 400, body: `<Error>${'x'.repeat(10_000_000)}</Error>` });
    await expect(put(wholeObject(someBytes(10)), false, never)).rejects.toMatchObject({
      $metadata: { httpStatusCode: 400 },
    });
    expect(proxy.count('PutObject')).toBe(1);
  });
});

test('a store that says 100 Continue unasked is sent one object in vain, and is the SDK’s from then on', async () => {
  const bySdk: boolean[] = [];
  const { endpoint } = await startStore((request, response) => {
    bySdk.push(OF_SDK_RETRIES in request.headers);
    response.writeContinue();
    request.resume().on('end', () => response.writeHead(200, { etag: '"0"' }).end());
  });
  const client = clientWith({ endpoint, forcePathStyle: true });
  const timeouts = DEFAULT_S3_TIMEOUTS;
  let told = 0;
  const onUnaskedContinue = (): void => {
    told += 1;
  };
  const facts = { client, bucket: BUCKET, timeouts, connections: 1, needsMd5: () => false };
  const direct = createDirectPut({ ...facts, onUnaskedContinue });
  onTestFinished(() => direct.close());
  for (let write = 0; write < 3; write += 1) await direct.put(wholeObject(someBytes(100_000)), true, never);
  expect(bySdk).toEqual([false, true, true, true]);
  expect(told).toBe(1);
});

/** A store whose clock is ahead of ours, and that takes nothing that was signed at another time. */
async function startStoreAhead(
  byMs: number,
): Promise<{ endpoint: string; answers: { status: number; bySdk: boolean }[] }> {
  const answers: { status: number; bySdk: boolean }[] = [];
  const { endpoint } = await startStore((request, response) => {
    const now = Date.now() + byMs;
    const status = Math.abs(signedAt(request.headers) - now) < 60_000 ? 200 : 403;
    answers.push({ status, bySdk: OF_SDK_RETRIES in request.headers });
    response.sendDate = false;
    response.writeHead(status, { date: new Date(now).toUTCString(), etag: '"0"' });
    request.resume().on('end', () => {
      response.end(status === 200 ? undefined : '<Error><Code>RequestTimeTooSkewed</Code></Error>');
    });
  });
  return { endpoint, answers };
}

async function startStore(answer: RequestListener): Promise<{ endpoint: string }> {
  const server = createServer(answer);
  const listening = Promise.withResolvers<void>();
  server.listen(0, '127.0.0.1', listening.resolve);
  await listening.promise;
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  return { endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

function signedAt(headers: IncomingHttpHeaders): number {
  const text = String(headers['x-amz-date']);
  return Date.parse(text.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z'));
}

test('an abort ends the request at once, with its reason', async () => {
  const { put, proxy } = await openDirect();
  await put(wholeObject(someBytes(10)), false, never);
  proxy.arm('PutObject', { type: 'hang', where: 'before' });
  const stop = new AbortController();
  const reason = new Error('stop');
  const putting = put(wholeObject(someBytes(10)), false, stop.signal);
  stop.abort(reason);
  await expect(putting).rejects.toBe(reason);
});
