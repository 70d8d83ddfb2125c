import { connect } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { FaultAction } from '../../../src/demo/weixin/fault.ts';
import type { SimulatedMedia } from '../../../src/demo/weixin/simulated-media.ts';
import { startWeixinSimulator, type WeixinSimulator } from '../../../src/demo/weixin/weixin-simulator.ts';
import { APP_ID, APP_SECRET } from '../../support/jobs.ts';
import { askToken, mediaUrl } from '../../support/weixin.ts';

let simulator: WeixinSimulator;
let media: SimulatedMedia;

beforeEach(async () => {
  simulator = await startWeixinSimulator();
  simulator.addApp({ appId: APP_ID, secret: APP_SECRET });
  media = simulator.addMedia({ appId: APP_ID, format: 'jpeg', sizeBytes: 100_000 });
});

afterEach(() => simulator.close());

/** What came over one connection before it ended, byte for byte. */
interface RawAnswer {
  readonly head: string;
  readonly body: Buffer;
  readonly reset: boolean;
}

/** Sends requests over one raw connection, one after the other is answered in part, and reads until it ends. */
async function raw(requests = 1, readBytes = Number.POSITIVE_INFINITY): Promise<RawAnswer> {
  const { access_token: token } = await askToken(simulator.url);
  const url = new URL(mediaUrl(simulator.url, token, media.mediaId));
  const request = `GET ${url.pathname}${url.search} HTTP/1.1\r\nHost: ${url.host}\r\n\r\n`;
  const { promise, resolve } = Promise.withResolvers<RawAnswer>();
  const chunks: Buffer[] = [];
  const socket = connect(Number(url.port), url.hostname, () => socket.write(request));
  let left = requests - 1;
  const end = (reset: boolean): void => {
    socket.destroy();
    const bytes = Buffer.concat(chunks);
    const split = bytes.indexOf('\r\n\r\n');
    resolve({ head: bytes.subarray(0, Math.max(0, split)).toString(), body: bytes.subarray(split + 4), reset });
  };
  socket.on('data', (chunk) => {
    chunks.push(chunk);
    const received = chunks.reduce((sum, { byteLength }) => sum + byteLength, 0);
    if (left > 0 && received > media.bytes.sizeBytes) {
      left -= 1;
      socket.write(request);
    }
    if (received >= readBytes) end(false);
  });
  socket.on('end', () => end(false));
  socket.on('error', () => end(true));
  return promise;
}

function arm(action: FaultAction, times?: number): void {
  simulator.arm({ endpoint: 'media', mediaId: media.mediaId, action, ...(times === undefined ? {} : { times }) });
}

async function ask(): Promise<Response> {
  const { access_token: token } = await askToken(simulator.url);
  return fetch(mediaUrl(simulator.url, token, media.mediaId));
}

test('truncate announces the whole length, sends a part and cuts', async () => {
  arm({ type: 'truncate', afterBytes: 12_345 });
  const { head, body } = await raw();
  expect(head).toContain('Content-Length: 100000');
  expect(body.byteLength).toBe(12_345);
});

test('reset ends the connection without an answer', async () => {
  arm({ type: 'reset' });
  expect(await raw()).toMatchObject({ head: '', reset: true });
});

test('a lost answer resets the connection, after what was asked has been done', async () => {
  const { access_token: before } = await askToken(simulator.url);
  simulator.arm({ endpoint: 'token', forced: true, action: { type: 'lost-answer' } });
  await expect(askToken(simulator.url, true)).rejects.toThrow();
  expect(simulator.counts.forced.get(APP_ID)).toBe(1);
  expect((await askToken(simulator.url)).access_token).not.toBe(before);
  expect(simulator.counts.tokens.get(APP_ID)).toBe(3);
});

test('a stale socket serves its first request and resets at the second', async () => {
  arm({ type: 'stale-socket' });
  const { head, reset } = await raw(2);
  expect(head).toContain('HTTP/1.1 200 OK');
  expect(reset).toBe(true);
});

test('a body that ends with its connection has neither length nor chunks', async () => {
  arm({ type: 'no-length', framing: 'close' });
  const { head, body } = await raw();
  expect(head.toLowerCase()).not.toMatch(/content-length|transfer-encoding/);
  expect(head).toContain('Connection: close');
  expect(body.equals(Buffer.concat([...media.bytes.chunks()]))).toBe(true);
});

test('a chunked body has no length and all its bytes', async () => {
  arm({ type: 'no-length', framing: 'chunked' });
  const response = await ask();
  expect(response.headers.get('content-length')).toBeNull();
  expect(response.headers.get('transfer-encoding')).toBe('chunked');
  expect((await response.arrayBuffer()).byteLength).toBe(100_000);
});

test('hang in the body sends headers and then nothing', async () => {
  arm({ type: 'hang', where: 'body' });
  const { head, body } = await raw(1, 100);
  expect(head).toContain('Content-Length: 100000');
  expect(body.byteLength).toBe(0);
});

test('drip sends all bytes, a few at a time', async () => {
  arm({ type: 'drip', chunkBytes: 20_000, everyMs: 1 });
  expect((await (await ask()).arrayBuffer()).byteLength).toBe(100_000);
});

test('gzip sends the bytes encoded', async () => {
  arm({ type: 'gzip' });
  const response = await ask();
  expect(response.headers.get('content-encoding')).toBe('gzip');
  expect((await response.arrayBuffer()).byteLength).toBe(100_000);
});

test.each<[FaultAction, { type: string | null; disposition: boolean; text: string | RegExp }]>([
  [{ type: 'empty' }, { type: 'image/jpeg', disposition: true, text: '' }],
  [
    { type: 'json-in-disguise', errcode: 40007 },
    { type: 'image/jpeg', disposition: true, text: /^\{"errcode":40007,/ },
  ],
  [
    { type: 'html', status: 200 },
    { type: 'text/html', disposition: false, text: /502 Bad Gateway/ },
  ],
  [
    { type: 'text', body: '{}' },
    { type: 'text/plain', disposition: false, text: '{}' },
  ],
  [
    { type: 'errcode', errcode: -1 },
    { type: 'text/plain', disposition: false, text: /^\{"errcode":-1,"errmsg":"system error hint/ },
  ],
  [
    { type: 'errcode', errcode: 45009, asString: true },
    { type: 'text/plain', disposition: false, text: /^\{"errcode":"45009",/ },
  ],
  [
    { type: 'wrong-type', contentType: 'text/plain', disposition: false },
    { type: 'text/plain', disposition: false, text: /JFIF/ },
  ],
])('%o does what it says', async (action, { type, disposition, text }) => {
  arm(action);
  const response = await ask();
  expect(response.headers.get('content-type')).toBe(type);
  expect(response.headers.has('content-disposition')).toBe(disposition);
  expect(await response.text()).toEqual(typeof text === 'string' ? text : expect.stringMatching(text));
});

test('a fault happens as often as it is armed for, then the honest answer comes', async () => {
  arm({ type: 'errcode', errcode: -1 }, 2);
  const types = [await ask(), await ask(), await ask()].map(({ headers }) => headers.get('content-type'));
  expect(types).toEqual(['text/plain', 'text/plain', 'image/jpeg']);
});

test('every second request is hit when so wanted', async () => {
  simulator.arm({ endpoint: 'media', every: 2, action: { type: 'errcode', errcode: 40001 } });
  const types = [await ask(), await ask(), await ask(), await ask()].map(({ headers }) => headers.get('content-type'));
  expect(types).toEqual(['image/jpeg', 'text/plain', 'image/jpeg', 'text/plain']);
});
