import type { Socket } from 'node:net';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { archiveMedia } from '../../src/archive/archive-media.ts';
import { BodyBuffers } from '../../src/archive/body-buffers.ts';
import { ByteBudget } from '../../src/archive/byte-budget.ts';
import type { FailureCode } from '../../src/failure.ts';
import { PARTS_HELD } from '../../src/store/archive-store.ts';
import { mediaKeyStem } from '../../src/store/object-keys.ts';
import type { WeixinTimeouts } from '../../src/weixin/http.ts';
import { testClock } from '../support/clock.ts';
import { testJob } from '../support/jobs.ts';
import { openRawWeixin, type RawWeixin, send, sendForEver } from '../support/raw-weixin.ts';
import { openEmbeddedBackend, openStoreBench, PART_SIZE_BYTES, type S3Backend, sha256Of } from '../support/store.ts';

const never = new AbortController().signal;
const MIB = 1024 * 1024;
const MAX_BYTES = 12 * MIB;
/** What lies in the buffers of the kernel and of the streams, on both sides. */
const ON_THE_WAY_BYTES = 16 * MIB;
/** What one body may hold, and as much again for what is not collected yet. */
const MEMORY_BYTES = 2 * PARTS_HELD * PART_SIZE_BYTES + 64 * MIB;

let backend: S3Backend;

beforeAll(async () => {
  backend = await openEmbeddedBackend();
});

afterAll(() => backend[Symbol.asyncDispose]());

interface Archived {
  readonly code: FailureCode | 'archived';
  /** What the server got rid of. */
  readonly sentBytes: number;
  /** By how much the memory of this process grew at most. */
  readonly grownBytes: number;
  readonly bytes?: Buffer | undefined;
}

/** Archives what the server sends until the client hangs up, and checks that nothing is left of what is not archived. */
async function archive(
  answer: (socket: Socket) => Promise<void> | void,
  timeouts: Partial<WeixinTimeouts> = {},
): Promise<Archived> {
  await using weixin: RawWeixin = await openRawWeixin(answer, { maxBytes: MAX_BYTES, timeouts });
  await using bench = await openStoreBench(backend);
  const budget = new ByteBudget(64 * MIB);
  const job = testJob();
  const parts = {
    weixin: weixin.client,
    store: bench.store,
    budget,
    buffers: new BodyBuffers(0),
    partSizeBytes: PART_SIZE_BYTES,
    maxBytes: MAX_BYTES,
    now: testClock().now,
  };
  const before = usedBytes();
  let peakBytes = before;
  const watching = setInterval(() => {
    peakBytes = Math.max(peakBytes, usedBytes());
  }, 5);
  const archived = await archiveMedia(parts, job, never).finally(() => clearInterval(watching));
  const grownBytes = Math.max(peakBytes, usedBytes()) - before;
  const { server } = weixin;
  const closed = server.sockets.map((socket) => closeOf(socket));
  if (!archived.ok) {
    // The client hangs up by itself: it is not closed yet.
    await Promise.all(closed);
    expect(await Array.fromAsync(bench.store.list(mediaKeyStem(job), never))).toEqual([]);
  }
  expect(bench.proxy.openUploads()).toEqual([]);
  expect(budget.usedBytes).toBe(0);
  return {
    code: archived.ok ? 'archived' : archived.failure.code,
    sentBytes: server.sentBytes(),
    grownBytes,
    bytes: archived.ok ? await bench.bytesAt(archived.value.key) : undefined,
  };
}

function usedBytes(): number {
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

async function closeOf(socket: Socket): Promise<void> {
  if (socket.closed) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  socket.once('close', () => resolve());
  await promise;
}

const JPEG = Buffer.from('ffd8ffe000104a46494600010100000100010000', 'hex');
const head = (...lines: readonly string[]): string => `${['HTTP/1.1 200 OK', ...lines].join('\r\n')}\r\n\r\n`;
const asImage = 'Content-Type: image/jpeg';
const inChunks = 'Transfer-Encoding: chunked';

const BLOCK = Buffer.alloc(64 * 1024, 0xa5);
const CRLF = Buffer.from('\r\n');
const CHUNK = Buffer.concat([Buffer.from(`${BLOCK.byteLength.toString(16)}\r\n`), BLOCK, CRLF]);

/** A stream of these bytes without end. */
const forEver =
  (start: string | Buffer, block: string | Buffer) =>
  async (socket: Socket): Promise<void> => {
    await send(socket, start);
    await sendForEver(socket, block);
  };

describe('what never ends is ended where the limit is passed, and nothing of it is kept', () => {
  test.each([
    ['a body in chunks', forEver(Buffer.concat([Buffer.from(`${head(asImage, inChunks)}14\r\n`), JPEG, CRLF]), CHUNK)],
    ['a body without a length', forEver(Buffer.concat([Buffer.from(head(asImage)), JPEG]), BLOCK)],
    [
      'a body of a length beyond all limits',
      forEver(Buffer.concat([Buffer.from(head(asImage, 'Content-Length: 999999999999999')), JPEG]), BLOCK),
    ],
    ['a body in chunks of no declared type', forEver(Buffer.concat([Buffer.from(head()), JPEG]), BLOCK)],
  ])('%s', async (_name, answer) => {
    const { code, sentBytes, grownBytes } = await archive(answer);
    expect(code).toBe('media-too-large');
    expect(sentBytes).toBeLessThan(MAX_BYTES + ON_THE_WAY_BYTES);
    expect(grownBytes).toBeLessThan(MEMORY_BYTES);
  });

  test('a gigabyte that was compressed to one thousandth', async () => {
    const member = gzipSync(Buffer.alloc(16 * MIB));
    const bomb = Buffer.concat([gzipSync(JPEG), ...Array.from({ length: 64 }, () => member)]);
    const start = head(asImage, 'Content-Encoding: gzip', `Content-Length: ${bomb.byteLength}`);
    const { code, grownBytes } = await archive((socket) => void socket.end(Buffer.concat([Buffer.from(start), bomb])));
    expect(bomb.byteLength).toBeLessThan(2 * MIB);
    expect(code).toBe('media-too-large');
    expect(grownBytes).toBeLessThan(MEMORY_BYTES);
  });
});

describe('what never ends and is no media is ended after a few bytes', () => {
  test.each<[string, (socket: Socket) => Promise<void>, FailureCode]>([
    [
      'a text like JSON',
      forEver(head('Content-Type: text/plain'), '{"a":"a",   '.repeat(100)),
      'weixin-unexpected-reply',
    ],
    ['a text like JSON in chunks', forEver(head(inChunks), '7\r\n{"a":"a\r\n'.repeat(100)), 'weixin-unexpected-reply'],
    ['white space', forEver(head(asImage), ' '.repeat(1_000)), 'body-not-media'],
    ['a page', forEver(head('Content-Type: text/html'), '<html>'.repeat(1_000)), 'weixin-bad-gateway'],
    ['the page of a gateway', forEver('HTTP/1.1 502 x\r\n\r\n', BLOCK), 'weixin-bad-gateway'],
    ['a header', forEver('HTTP/1.1 200 OK\r\nX: ', 'x'.repeat(1_000)), 'weixin-bad-gateway'],
    ['headers', forEver('HTTP/1.1 200 OK\r\n', 'X-Header: x\r\n'.repeat(100)), 'weixin-bad-gateway'],
    ['a reason', forEver('HTTP/1.1 200 ', 'x'.repeat(1_000)), 'weixin-timeout'],
    ['good news beforehand', forEver('', 'HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(100)), 'weixin-timeout'],
  ])('%s', async (_name, answer, expected) => {
    const { code, sentBytes, grownBytes } = await archive(
      answer,
      expected === 'weixin-timeout' ? { totalMs: 1_500 } : {},
    );
    expect(code).toBe(expected);
    // Of what is not looked at, as much may come as the time allows.
    if (expected !== 'weixin-timeout') expect(sentBytes).toBeLessThan(ON_THE_WAY_BYTES);
    expect(grownBytes).toBeLessThan(MEMORY_BYTES);
  });
});

describe('what never ends behind the head of a body', () => {
  test('is no part of a body of a known length', async () => {
    const start = Buffer.concat([Buffer.from(head(asImage, `Content-Length: ${JPEG.byteLength}`)), JPEG]);
    const { code, bytes, sentBytes } = await archive(forEver(start, BLOCK));
    expect(code).toBe('archived');
    expect(bytes).toEqual(JPEG);
    expect(sentBytes).toBeLessThan(ON_THE_WAY_BYTES);
  });

  test.each([
    ['the extension of a chunk', `${inChunks}\r\n\r\n1;a=`],
    ['a trailer', `${inChunks}\r\n\r\n1\r\na\r\n0\r\nX: `],
  ])('is ended by the time or the limit of headers when it is %s', async (_name, start) => {
    const { code, grownBytes } = await archive(
      forEver(`HTTP/1.1 200 OK\r\n${asImage}\r\n${start}`, 'x'.repeat(1_000)),
      {
        totalMs: 1_500,
      },
    );
    expect(['weixin-timeout', 'weixin-bad-gateway', 'body-truncated']).toContain(code);
    expect(grownBytes).toBeLessThan(MEMORY_BYTES);
  });
});

test('a body in chunks of one byte costs the memory of its bytes, not of its chunks', async () => {
  const body = Buffer.concat([JPEG, Buffer.alloc(2 * MIB, 0xa5)]);
  const { code, bytes, grownBytes } = await archive(async (socket) => {
    await send(socket, head(asImage, inChunks));
    for (let from = 0; from < body.byteLength; from += BLOCK.byteLength) {
      const block = body.subarray(from, from + BLOCK.byteLength);
      const wire = Buffer.alloc(6 * block.byteLength, '1\r\n?\r\n');
      for (const [index, byte] of block.entries()) wire[6 * index + 3] = byte;
      await send(socket, wire);
    }
    await send(socket, '0\r\n\r\n');
  });
  expect(code).toBe('archived');
  expect(bytes === undefined ? '' : sha256Of(bytes)).toBe(sha256Of(body));
  expect(grownBytes).toBeLessThan(MEMORY_BYTES);
});
