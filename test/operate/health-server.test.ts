import { afterEach, beforeEach, expect, test } from 'vitest';
import { type HealthServer, startHealthServer } from '../../src/operate/health-server.ts';

let server: HealthServer;
let unhealthy: string | undefined;
let unready: string | undefined;
let metrics: () => Promise<{ contentType: string; body: string }>;

beforeEach(async () => {
  unhealthy = undefined;
  unready = undefined;
  metrics = async () => ({ contentType: 'text/plain; version=0.0.4', body: 'up 1\n' });
  server = await startHealthServer('127.0.0.1', 0, {
    unhealthy: () => unhealthy,
    unready: () => unready,
    metrics: () => metrics(),
  });
});

afterEach(() => server.close());

async function get(path: string): Promise<{ status: number; body: string; type: string | null }> {
  const response = await fetch(`http://127.0.0.1:${server.port}${path}`);
  return { status: response.status, body: await response.text(), type: response.headers.get('content-type') };
}

test('a process that is well and ready answers 200', async () => {
  expect(await get('/healthz')).toMatchObject({ status: 200, body: 'ok\n' });
  expect(await get('/readyz?verbose')).toMatchObject({ status: 200, body: 'ok\n' });
});

test('one that is not answers 503 with the reason, each for itself', async () => {
  unready = 'starting';
  expect(await get('/healthz')).toMatchObject({ status: 200 });
  expect(await get('/readyz')).toMatchObject({ status: 503, body: 'starting\n' });
  unhealthy = 'stuck';
  expect(await get('/healthz')).toMatchObject({ status: 503, body: 'stuck\n' });
});

test('metrics have their type; numbers that cannot be read are 503, and the process goes on', async () => {
  expect(await get('/metrics')).toEqual({ status: 200, body: 'up 1\n', type: 'text/plain; version=0.0.4' });
  metrics = () => Promise.reject(new Error('Redis is away'));
  expect(await get('/metrics')).toMatchObject({ status: 503 });
  expect(await get('/healthz')).toMatchObject({ status: 200 });
});

test('anything else is not found', async () => {
  expect(await get('/')).toMatchObject({ status: 404 });
});

test('a port that is taken is an error at once', async () => {
  const sources = { unhealthy: () => undefined, unready: () => undefined, metrics };
  await expect(startHealthServer('127.0.0.1', server.port, sources)).rejects.toMatchObject({ code: 'EADDRINUSE' });
});

test('closing does not wait for a connection that is kept open', async () => {
  await get('/healthz');
  await server.close();
  await expect(get('/healthz')).rejects.toThrow();
});

test('numbers that never come are 503 too, so that nobody who asks hangs on a Redis that is away', async () => {
  metrics = () => Promise.withResolvers<never>().promise;
  expect(await get('/metrics')).toMatchObject({ status: 503 });
});
