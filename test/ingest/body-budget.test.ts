import { type FastifyInstance, fastify } from 'fastify';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createBodyBudget } from '../../src/ingest/body-budget.ts';
import { eventually } from '../support/eventually.ts';

const LARGEST = 100;

let app: FastifyInstance;
let url: string;
let release: () => void;

beforeEach(async () => {
  const { promise: held, resolve } = Promise.withResolvers<void>();
  release = resolve;
  app = fastify({ forceCloseConnections: true });
  app.addHook('onRequest', createBodyBudget(LARGEST, 250));
  app.post('/hold', async () => {
    await held;
    return 'held';
  });
  app.post('/', async () => 'done');
  url = await app.listen({ host: '127.0.0.1', port: 0 });
});

afterEach(async () => {
  release();
  await app.close();
});

function post(path: string, bytes: number, signal?: AbortSignal): Promise<Response> {
  const body = JSON.stringify('x'.repeat(bytes - 2));
  const headers = { 'content-type': 'application/json' };
  return fetch(url + path, { method: 'POST', body, headers, ...(signal === undefined ? {} : { signal }) });
}

async function untilFull(): Promise<void> {
  await eventually(async () => ((await post('/', LARGEST)).status === 503 ? true : undefined));
}

test('turns away what would be too much at once, and takes it when there is room', async () => {
  const held = [post('/hold', LARGEST), post('/hold', LARGEST)];
  await untilFull();
  const refused = await post('/', LARGEST);
  expect(refused.headers.get('retry-after')).toBe('1');
  expect((await post('/', 40)).status).toBe(200);
  release();
  await Promise.all(held);
  await eventually(async () => ((await post('/', LARGEST)).status === 200 ? true : undefined));
});

test('gives back what those had who went away', async () => {
  const gone = new AbortController();
  const held = [post('/hold', LARGEST, gone.signal), post('/hold', LARGEST, gone.signal)];
  const ends = Promise.allSettled(held);
  await untilFull();
  gone.abort();
  await ends;
  await eventually(async () => ((await post('/', LARGEST)).status === 200 ? true : undefined));
});

test('counts a body that does not say how long it is as the largest', async () => {
  const held = [post('/hold', LARGEST), post('/hold', 60)];
  await untilFull();
  const body = new ReadableStream({
    start: (controller) => {
      controller.enqueue(new TextEncoder().encode('1'));
      controller.close();
    },
  });
  const headers = { 'content-type': 'application/json' };
  const chunked = await fetch(url, { method: 'POST', body, headers, duplex: 'half' } as RequestInit);
  expect(chunked.status).toBe(503);
  release();
  await Promise.all(held);
});
