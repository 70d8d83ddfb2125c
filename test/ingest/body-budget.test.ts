import { Agent, request } from 'node:http';
import { type FastifyInstance, fastify } from 'fastify';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createBodyBudget } from '../../src/ingest/body-budget.ts';
import { eventually } from '../support/eventually.ts';

const KIB = 1024;
const LARGEST = 160 * KIB;
const BUDGET = 320 * KIB;

let app: FastifyInstance;
let url: string;
let release: () => void;

beforeEach(async () => {
  const { promise: held, resolve } = Promise.withResolvers<void>();
  release = resolve;
  app = fastify({ forceCloseConnections: true, bodyLimit: LARGEST });
  app.addHook('preParsing', createBodyBudget(LARGEST, BUDGET));
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

/** Sends a body that does not say how long it is. */
interface Chunked {
  write(bytes: number): void;
  end(): void;
  readonly answer: Promise<{ readonly status: number | undefined; readonly again: string | undefined }>;
}

const agents: Agent[] = [];

afterEach(() => {
  for (const agent of agents.splice(0)) agent.destroy();
});

function chunked(path = '/', agent = new Agent(), type = 'application/json'): Chunked {
  agents.push(agent);
  const { promise: answer, resolve, reject } = Promise.withResolvers<Awaited<Chunked['answer']>>();
  const sent = request(url + path, { method: 'POST', agent, headers: { 'content-type': type } }, (response) => {
    response.resume();
    resolve({ status: response.statusCode, again: response.headers['retry-after'] });
  });
  sent.on('error', reject);
  sent.write('"');
  return { write: (bytes) => sent.write('x'.repeat(bytes)), end: () => sent.end('"'), answer };
}

/** The status of a request that wants all that is left. */
async function left(bytes: number): Promise<boolean> {
  return (await post('/', bytes)).status === 200;
}

describe('a body that does not say how long it is', () => {
  test('takes little while it is small', async () => {
    // As the largest, two of them would be all.
    const small = Array.from({ length: 4 }, () => chunked('/hold'));
    for (const each of small) each.end();
    await eventually(async () => ((await left(100 * KIB)) ? undefined : true));
    expect(await left(60 * KIB)).toBe(true);
    release();
    expect(await Promise.all(small.map(({ answer }) => answer))).toEqual(
      small.map(() => ({ status: 200, again: undefined })),
    );
    await eventually(async () => ((await left(LARGEST)) ? true : undefined));
  });

  test('takes more as it grows, and is turned away when there is no more', async () => {
    const held = [post('/hold', LARGEST), post('/hold', 60 * KIB)];
    await eventually(async () => ((await left(110 * KIB)) ? undefined : true));
    const growing = chunked();
    growing.write(120 * KIB);
    expect(await growing.answer).toEqual({ status: 503, again: '1' });
    release();
    await Promise.all(held);
    await eventually(async () => ((await left(LARGEST)) ? true : undefined));
    const later = chunked();
    later.write(120 * KIB);
    later.end();
    expect(await later.answer).toMatchObject({ status: 200 });
  });

  test('is refused beyond the largest, and gives back what it had', async () => {
    const large = chunked();
    large.write(LARGEST);
    large.end();
    expect(await large.answer).toMatchObject({ status: 413 });
    await eventually(async () => ((await left(LARGEST)) ? true : undefined));
  });

  test('gives back what it had when its sender goes away', async () => {
    const agent = new Agent();
    const gone = [chunked('/', agent), chunked('/', agent)];
    for (const { write } of gone) write(120 * KIB);
    await eventually(async () => ((await left(LARGEST)) ? undefined : true));
    agent.destroy();
    await Promise.allSettled(gone.map(({ answer }) => answer));
    await eventually(async () => ((await left(LARGEST)) ? true : undefined));
  });

  test('that nobody reads stands in no way', async () => {
    // One connection, which is used again.
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const unread = chunked('/', agent, 'image/png');
    // More than the streams in between hold.
    unread.write(4_096 * KIB);
    unread.end();
    expect(await unread.answer).toMatchObject({ status: 415 });
    const next = chunked('/', agent);
    next.end();
    expect(await next.answer).toMatchObject({ status: 200 });
  });
});
