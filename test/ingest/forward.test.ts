import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createForward, FORWARD_TOTAL_MS, type Forward } from '../../src/ingest/forward.ts';
import { SECOND } from '../../src/time.ts';
import type { ForwardedPush } from '../../src/weixin/push/forward-push.ts';
import { eventually } from '../support/eventually.ts';
import { startTestHandler, type TestHandler } from '../support/handler.ts';
import { APP_ID } from '../support/jobs.ts';

const PUSH: ForwardedPush = {
  appId: APP_ID,
  query: 'signature=SIGNATURE&nonce=1&openid=oPERSON',
  headers: { 'content-type': 'text/xml', 'x-wx-sources': 'wx' },
  body: Buffer.from([0x3c, 0xff, 0x00, 0x3e]),
};
/** No test is about how fast this machine is. */
const PATIENT_MS = 60 * SECOND;

let parts: AsyncDisposableStack;
let handler: TestHandler;
let lines: unknown[];

beforeEach(async () => {
  parts = new AsyncDisposableStack();
  handler = parts.use(await startTestHandler());
  lines = [];
});

afterEach(() => parts.disposeAsync());

function forwardTo(template: string, totalMs = PATIENT_MS): Forward {
  const forward = createForward(template, { warn: (...line: unknown[]) => void lines.push(line) }, totalMs);
  parts.defer(() => forward.close());
  return forward;
}

test('a push goes on as it came, byte for byte', async () => {
  const answer = await forwardTo(`${handler.url}/x/{appId}?y=1`).send(PUSH, 0);
  expect(answer).toMatchObject({ status: 200, body: Buffer.from('success') });
  expect(handler.requests).toMatchObject([
    {
      method: 'POST',
      url: `/x/${APP_ID}?y=1&${PUSH.query}`,
      headers: { 'content-type': 'text/xml', 'x-wx-sources': 'wx', 'content-length': '4' },
      body: PUSH.body,
    },
  ]);
});

test('beyond so many under way a push is told to come again, at once, and the others go on', async () => {
  const held = Promise.withResolvers<void>();
  handler.answer = (response) => void held.promise.then(() => response.end('success'));
  const forward = createForward(handler.url, { warn: (...line: unknown[]) => void lines.push(line) }, PATIENT_MS, 2);
  parts.defer(() => forward.close());
  const first = [forward.send(PUSH, 0), forward.send(PUSH, 0)];
  expect(await Promise.all([forward.send(PUSH, 0), forward.send(PUSH, 0)])).toMatchObject([
    { status: 504 },
    { status: 504 },
  ]);
  expect(lines).toHaveLength(1);
  held.resolve();
  expect(await Promise.all(first)).toMatchObject([{ status: 200 }, { status: 200 }]);
  expect(await forward.send(PUSH, 0)).toMatchObject({ status: 200 });
});

describe('the answer goes back as it came', () => {
  test.each<[number, Record<string, string>, string | Buffer]>([
    [200, { 'content-type': 'application/xml; charset=utf-8' }, '<xml><Content>好</Content></xml>'],
    [200, {}, ''],
    [201, { 'content-type': 'x/y' }, Buffer.from([0, 255, 1])],
    [200, { 'content-encoding': 'gzip', 'content-type': 'text/plain' }, gzipSync('success')],
    [302, {}, 'elsewhere'],
    [404, {}, 'nobody'],
    [500, { 'content-type': 'text/html' }, '<h1>x</h1>'],
    [503, {}, ''],
  ])('%d %o', async (status, headers, body) => {
    handler.answer = (response) =>
      response.writeHead(status, { ...headers, location: `${handler.url}/elsewhere`, 'set-cookie': 'a=b' }).end(body);
    const answer = await forwardTo(handler.url).send(PUSH, 0);
    expect(answer).toMatchObject({ status, body: Buffer.from(body) });
    expect(answer.headers).toEqual(headers);
    expect(handler.requests).toHaveLength(1);
    expect(lines).toEqual([]);
  });

  test('up to a mebibyte', async () => {
    handler.answer = (response) => response.end(Buffer.alloc(1024 * 1024, 'x'));
    expect((await forwardTo(handler.url).send(PUSH, 0)).body).toHaveLength(1024 * 1024);
  });
});

describe('a handler that', () => {
  test.each<[string, TestHandler['answer']]>([
    ['hangs up', (response) => response.destroy()],
    [
      'hangs up within its answer',
      (response) => response.writeHead(200, { 'content-length': 9 }).write('x', () => response.destroy()),
    ],
    ['answers what is no HTTP', (response) => response.socket?.end('hello\r\n\r\n')],
    ['answers more than a mebibyte', (response) => response.end(Buffer.alloc(1024 * 1024 + 1))],
    ['says that it answers more, and takes its time', (response) => response.write(Buffer.alloc(2 * 1024 * 1024))],
  ])('%s is 502', async (_name, answer) => {
    handler.answer = answer;
    expect((await forwardTo(handler.url).send(PUSH, 0)).status).toBe(502);
    expect(lines).toHaveLength(1);
  });

  test('is away is 502', async () => {
    await handler.close();
    expect((await forwardTo(handler.url).send(PUSH, 0)).status).toBe(502);
    expect(lines).toEqual([[{ appId: APP_ID, detail: 'ECONNREFUSED' }, expect.any(String)]]);
  });

  test.each<[string, TestHandler['answer']]>([
    ['does not answer', () => undefined],
    ['begins to answer, and does not end', (response) => void response.write('succ')],
  ])('%s is 504, and its connection ends', async (_name, answer) => {
    const closed = Promise.withResolvers<void>();
    handler.answer = (response, request) => {
      response.on('close', closed.resolve);
      answer(response, request);
    };
    expect((await forwardTo(handler.url, 300).send(PUSH, 0)).status).toBe(504);
    // A machine that is slow may not have got so far.
    if (handler.requests.length > 0) await closed.promise;
  });
});

test('what a push has taken already is not there for the handler', async () => {
  handler.answer = () => undefined;
  expect((await forwardTo(handler.url).send(PUSH, PATIENT_MS - 50)).status).toBe(504);
  expect((await forwardTo(handler.url).send(PUSH, PATIENT_MS + 1)).status).toBe(504);
  expect(FORWARD_TOTAL_MS).toBeLessThan(5 * SECOND);
});

test('closing breaks off what is on its way', async () => {
  handler.answer = () => undefined;
  const forward = forwardTo(handler.url);
  const sending = forward.send(PUSH, 0);
  await eventually(() => handler.requests[0]);
  await forward.close();
  expect((await sending).status).toBe(504);
});

test('what is logged holds neither the query nor the body', async () => {
  handler.answer = (response) => response.destroy();
  await forwardTo(`${handler.url}/?key=KEY`).send({ ...PUSH, body: Buffer.from('SECRET') }, 0);
  await forwardTo(handler.url, 50).send(PUSH, 50);
  expect(lines).toHaveLength(2);
  expect(JSON.stringify(lines)).not.toMatch(/SIGNATURE|oPERSON|SECRET|KEY/);
});
