import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { archiveMedia } from '../../src/archive/archive-media.ts';
import { BodyBuffers } from '../../src/archive/body-buffers.ts';
import { ByteBudget } from '../../src/archive/byte-budget.ts';
import { mediaKeyStem } from '../../src/store/object-keys.ts';
import { testClock } from '../support/clock.ts';
import { testJob } from '../support/jobs.ts';
import { openRawWeixin, type RawAnswer, send } from '../support/raw-weixin.ts';
import { openEmbeddedBackend, openStoreBench, PART_SIZE_BYTES, type S3Backend, sha256Of } from '../support/store.ts';

const never = new AbortController().signal;
/** Two parts and something: most of what is too large has been sent by the time it shows. */
const MAX_BYTES = 2 * PART_SIZE_BYTES + 1_000;

let backend: S3Backend;

beforeAll(async () => {
  backend = await openEmbeddedBackend();
});

afterAll(() => backend[Symbol.asyncDispose]());

const MP4 = Buffer.from('00000018667479706d703432000000006d703432', 'hex');

const mp4Of = (sizeBytes: number): Buffer => Buffer.concat([MP4, Buffer.alloc(sizeBytes - MP4.byteLength, 0xa5)]);

/** How a body may be sent. */
const FRAMINGS: Readonly<Record<string, (body: Buffer) => readonly (string | Buffer)[]>> = {
  'with its length': (body) => [`Content-Length: ${body.byteLength}\r\n\r\n`, body],
  'in chunks': (body) => [
    `Transfer-Encoding: chunked\r\n\r\n${body.byteLength.toString(16)}\r\n`,
    body,
    '\r\n0\r\n\r\n',
  ],
  'until the connection ends': (body) => ['\r\n', body],
  compressed: (body) => ['Content-Encoding: gzip\r\n\r\n', gzipSync(body, { level: 1 })],
};

/** Serves a body itself, or its address first. */
function serving(pieces: readonly (string | Buffer)[], from: 'media/get' | 'video_url'): RawAnswer {
  return async (socket, { head }) => {
    if (from === 'video_url' && !head.startsWith('GET /video ')) {
      const json = JSON.stringify({ video_url: `http://127.0.0.1:${socket.localPort}/video` });
      socket.end(`HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: ${json.length}\r\n\r\n${json}`);
      return;
    }
    await send(socket, 'HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n');
    for (const piece of pieces) await send(socket, piece);
    socket.end();
  };
}

describe.each(['media/get', 'video_url'] as const)('a media from %s', (from) => {
  describe.each(Object.entries(FRAMINGS))('%s', (framing, piecesOf) => {
    test.each([
      ['as large as is allowed is archived', MAX_BYTES, true],
      ['larger by a byte is not, and nothing of it is left', MAX_BYTES + 1, false],
      ['larger by parts is not, and nothing of it is left', MAX_BYTES + 2 * PART_SIZE_BYTES, false],
    ])('%s', async (_title, sizeBytes, fits) => {
      const body = mp4Of(sizeBytes);
      await using weixin = await openRawWeixin(serving(piecesOf(body), from), { maxBytes: MAX_BYTES });
      await using bench = await openStoreBench(backend);
      const budget = new ByteBudget(64 * 1024 * 1024);
      const parts = {
        weixin: weixin.client,
        store: bench.store,
        budget,
        buffers: new BodyBuffers(0),
        partSizeBytes: PART_SIZE_BYTES,
        maxBytes: MAX_BYTES,
        now: testClock().now,
      };
      const job = testJob({ kind: 'video' });
      const archived = await archiveMedia(parts, job, never);
      expect(bench.proxy.openUploads()).toEqual([]);
      expect(budget.usedBytes).toBe(0);
      if (fits) {
        expect(archived).toMatchObject({ ok: true, value: { sizeBytes, sha256: sha256Of(body) } });
        return;
      }
      expect(archived).toMatchObject({ ok: false, failure: { code: 'media-too-large' } });
      expect(await Array.fromAsync(bench.store.list(mediaKeyStem(job), never))).toEqual([]);
      expect(bench.proxy.count('CompleteMultipartUpload')).toBe(0);
      // A length that says so is believed before a byte is sent.
      if (framing === 'with its length')
        expect(bench.proxy.seen.map(({ operation }) => operation)).toEqual(['ListObjects']);
      // One whose end proves nothing is read through before a part of it is stored.
      else expect(bench.proxy.count('AbortMultipartUpload')).toBe(framing === 'in chunks' ? 1 : 0);
    });
  });
});
