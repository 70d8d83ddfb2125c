import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { zstdCompressSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { archiveMedia } from '../../src/archive/archive-media.ts';
import { BodyBuffers } from '../../src/archive/body-buffers.ts';
import { ByteBudget } from '../../src/archive/byte-budget.ts';
import { mediaKeyStem } from '../../src/store/object-keys.ts';
import { testClock } from '../support/clock.ts';
import { testJob } from '../support/jobs.ts';
import { openRawWeixin, send } from '../support/raw-weixin.ts';
import { openEmbeddedBackend, openStoreBench, PART_SIZE_BYTES, type S3Backend } from '../support/store.ts';

const never = new AbortController().signal;
const JPEG_MAGIC = Buffer.from('ffd8ffe000104a46494600010100000100010000', 'hex');

let backend: S3Backend;

beforeAll(async () => {
  backend = await openEmbeddedBackend();
});

afterAll(() => backend[Symbol.asyncDispose]());

interface Answer {
  readonly headers?: readonly string[];
  readonly body: Buffer;
  /** The connection is closed in good order, or reset. */
  readonly ending: 'end' | 'reset' | 'keep';
}

/** Archives what the answers give, one after the other. Returns how it ended and what lies in the bucket. */
async function archive(
  answers: readonly Answer[],
): Promise<{ end: string; asked: number; stored?: Buffer | undefined }> {
  let asked = 0;
  const maxBytes = 4 * PART_SIZE_BYTES;
  await using weixin = await openRawWeixin(
    async (socket: Socket) => {
      const { headers = [], body, ending } = answers[asked] ?? { body: Buffer.alloc(0), ending: 'reset' };
      asked += 1;
      await send(socket, `${['HTTP/1.1 200 OK', 'Content-Type: image/jpeg', ...headers].join('\r\n')}\r\n\r\n`);
      await send(socket, body);
      if (ending === 'end') socket.end();
      if (ending === 'reset') socket.resetAndDestroy();
    },
    { maxBytes },
  );
  await using bench = await openStoreBench(backend);
  const job = testJob();
  const archived = await archiveMedia(
    {
      weixin: weixin.client,
      store: bench.store,
      budget: new ByteBudget(64 * 1024 * 1024),
      buffers: new BodyBuffers(0),
      partSizeBytes: PART_SIZE_BYTES,
      maxBytes,
      now: testClock().now,
    },
    job,
    never,
  );
  expect(bench.proxy.openUploads()).toEqual([]);
  if (archived.ok) return { end: 'archived', asked, stored: await bench.bytesAt(archived.value.key) };
  expect(await Array.fromAsync(bench.store.list(mediaKeyStem(job), never))).toEqual([]);
  return { end: archived.failure.code, asked };
}

describe.each([
  ['of one part', 30_000],
  ['of many parts', PART_SIZE_BYTES + 70_000],
])('a body %s that only the end of its connection ends', (_name, sizeBytes) => {
  const whole = Buffer.concat([JPEG_MAGIC, randomBytes(sizeBytes)]);
  const half = whole.subarray(0, sizeBytes / 2);

  test('is archived when a second download is the same', async () => {
    const answer: Answer = { body: whole, ending: 'end' };
    const { end, asked, stored } = await archive([answer, answer]);
    expect({ end, asked }).toEqual({ end: 'archived', asked: 2 });
    expect(stored?.equals(whole)).toBe(true);
  });

  test('is never whole when it ends with a reset, however often', async () => {
    const answer: Answer = { body: half, ending: 'reset' };
    expect(await archive([answer, answer])).toEqual({ end: 'body-truncated', asked: 1 });
  });

  test.each<[string, Answer, Answer, number]>([
    ['the first is cut', { body: half, ending: 'end' }, { body: whole, ending: 'end' }, 2],
    ['the second is cut', { body: whole, ending: 'end' }, { body: half, ending: 'end' }, 2],
    ['the first is reset', { body: half, ending: 'reset' }, { body: whole, ending: 'end' }, 1],
    ['the second is reset', { body: whole, ending: 'end' }, { body: half, ending: 'reset' }, 2],
  ])('is not stored when %s', async (_what, first, second, asked) => {
    expect(await archive([first, second])).toEqual({ end: 'body-truncated', asked });
  });

  test('needs no comparison when the second one says how long it is', async () => {
    const framed: Answer = { headers: [`Content-Length: ${whole.byteLength}`], body: whole, ending: 'keep' };
    const { end, stored } = await archive([{ body: half, ending: 'end' }, framed]);
    expect(end).toBe('archived');
    expect(stored?.equals(whole)).toBe(true);
  });
});

test('a body that says how long it is costs one download', async () => {
  const body = Buffer.concat([JPEG_MAGIC, randomBytes(1_000)]);
  const headers = [`Content-Length: ${body.byteLength}`];
  expect(await archive([{ headers, body, ending: 'keep' }])).toMatchObject({ end: 'archived', asked: 1 });
});

test.each(['zstd', 'compress', 'gzip, gzip', 'nonsense'])(
  'bytes in an encoding that is not undone are no media: %s',
  async (encoding) => {
    const body = zstdCompressSync(JPEG_MAGIC);
    const headers = [`Content-Encoding: ${encoding}`, `Content-Length: ${body.byteLength}`];
    expect((await archive([{ headers, body, ending: 'keep' }])).end).toBe('weixin-bad-gateway');
  },
);
