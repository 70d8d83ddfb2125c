import fc from 'fast-check';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { archiveMedia } from '../../src/archive/archive-media.ts';
import { BodyBuffers } from '../../src/archive/body-buffers.ts';
import { ByteBudget } from '../../src/archive/byte-budget.ts';
import { FAILURES } from '../../src/failure.ts';
import { SECOND } from '../../src/time.ts';
import { testClock } from '../support/clock.ts';
import { type HostileReply, hostileReplies } from '../support/hostile-reply.ts';
import { testJob } from '../support/jobs.ts';
import { openRawWeixin, RAW_TOKEN, type RawAnswer, send } from '../support/raw-weixin.ts';
import { openEmbeddedBackend, openStoreBench, type S3Backend } from '../support/store.ts';

// Shrinking a failure takes as many answers again.
vi.setConfig({ testTimeout: 120_000 });

const never = new AbortController().signal;
const MAX_BYTES = 4_096;
/** Small, so that bodies take both ways into the store. */
const PART_BYTES = 1_000;
/** Properties side by side: an answer that is tried again is waited for. */
const LANES = 48;
const RUNS = 8;
/** An attempt tries four times, each as long as the total time, with pauses of up to 5 s in all. */
const TIMEOUTS = { connectMs: 5 * SECOND, responseMs: 4 * SECOND, idleMs: 4 * SECOND, totalMs: 8 * SECOND };
const ATTEMPT_MS = 45 * SECOND;

let backend: S3Backend;

beforeAll(async () => {
  backend = await openEmbeddedBackend();
});

afterAll(() => backend[Symbol.asyncDispose]());

/** Plays replies by the media_id that is asked for. */
function playing(replies: ReadonlyMap<string, HostileReply>): RawAnswer {
  return async (socket, { mediaId }) => {
    const reply = replies.get(mediaId);
    if (reply === undefined) throw new Error(`nobody has a reply for ${mediaId}`);
    // Each in a packet of its own.
    for (const piece of reply.pieces) await send(socket, Buffer.from(piece, 'latin1'));
    if (reply.ending === 'end') socket.end();
    if (reply.ending === 'reset') socket.resetAndDestroy();
  };
}

test('whatever WeChat answers, the bytes of a whole media are stored, or nothing is', async () => {
  const replies = new Map<string, HostileReply>();
  await using weixin = await openRawWeixin(playing(replies), { timeouts: TIMEOUTS, maxBytes: MAX_BYTES });
  await using bench = await openStoreBench(backend);
  const budget = new ByteBudget(64 * 1024 * 1024);
  const parts = {
    weixin: weixin.client,
    store: bench.store,
    budget,
    buffers: new BodyBuffers(0),
    partSizeBytes: PART_BYTES,
    maxBytes: MAX_BYTES,
    now: testClock().now,
  };
  const ends = new Map<string, number>();

  const property = fc.asyncProperty(hostileReplies, async (reply) => {
    const job = testJob();
    replies.set(job.mediaId, reply);
    const archived = await archiveMedia(parts, job, never);
    const end = archived.ok ? 'archived' : archived.failure.code;
    ends.set(end, (ends.get(end) ?? 0) + 1);

    const tooLarge = (reply.body?.byteLength ?? 0) > MAX_BYTES;
    if (reply.good) expect(end).toBe(tooLarge ? 'media-too-large' : 'archived');
    if (archived.ok) {
      const { key, sizeBytes } = archived.value;
      expect(reply.body).toBeDefined();
      expect(await bench.bytesAt(key)).toEqual(reply.body);
      expect(sizeBytes).toBeGreaterThan(0);
      expect(sizeBytes).toBeLessThanOrEqual(MAX_BYTES);
      return;
    }
    expect(FAILURES).toHaveProperty(archived.failure.code);
    expect(JSON.stringify(archived.failure).toLowerCase()).not.toContain(RAW_TOKEN.toLowerCase());
    expect(await bench.store.find(`media/app=${job.appId}/kind=image/dt=2026-06-15/${job.mediaId}`, never)).toEqual({
      ok: true,
      value: undefined,
    });
  });
  await Promise.all(Array.from({ length: LANES }, () => fc.assert(property, { numRuns: RUNS, timeout: ATTEMPT_MS })));

  expect(bench.proxy.openUploads()).toEqual([]);
  expect(budget.usedBytes).toBe(0);
  // It has seen the good and the bad.
  expect(ends.get('archived')).toBeGreaterThan(10);
  expect([...ends.keys()].length).toBeGreaterThan(8);
});
