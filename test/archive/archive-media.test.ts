import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ArchivedObject, type ArchiveParts, archiveMedia } from '../../src/archive/archive-media.ts';
import { BodyBuffers } from '../../src/archive/body-buffers.ts';
import { ByteBudget } from '../../src/archive/byte-budget.ts';
import type { FaultAction } from '../../src/demo/weixin/fault.ts';
import { SAMPLE_FORMATS, type SampleFormat } from '../../src/demo/weixin/sample-media.ts';
import type { SimulatedMedia } from '../../src/demo/weixin/simulated-media.ts';
import { type FailureCode, FailureError, failure, type Result, succeed } from '../../src/failure.ts';
import type { MediaJob } from '../../src/media/media-job.ts';
import { PARTS_HELD } from '../../src/store/archive-store.ts';
import { mediaKeyStem } from '../../src/store/object-keys.ts';
import type { WeixinTimeouts } from '../../src/weixin/http.ts';
import type { MediaBody } from '../../src/weixin/media-body.ts';
import { testClock } from '../support/clock.ts';
import { eventually } from '../support/eventually.ts';
import { APP_ID, testJob } from '../support/jobs.ts';
import {
  chunksOf,
  openEmbeddedBackend,
  openStoreBench,
  PART_SIZE_BYTES,
  type S3Backend,
  type StoreBench,
  sha256Of,
  someBytes,
} from '../support/store.ts';
import { openWeixinBench, type WeixinBench } from '../support/weixin.ts';

const never = new AbortController().signal;
const MAX_BYTES = 64 * 1024 * 1024;

let backend: S3Backend;

beforeAll(async () => {
  backend = await openEmbeddedBackend();
});

afterAll(() => backend[Symbol.asyncDispose]());

/** A store, and a WeChat that is the simulator or gives just this body. */
interface Bench extends AsyncDisposable {
  readonly weixin: WeixinBench;
  readonly store: StoreBench;
  readonly budget: ByteBudget;
  readonly parts: ArchiveParts;
}

async function openBench(more: Partial<ArchiveParts> = {}, timeouts: Partial<WeixinTimeouts> = {}): Promise<Bench> {
  await using opened = new AsyncDisposableStack();
  const weixin = opened.use(await openWeixinBench({ timeouts }));
  const store = opened.use(await openStoreBench(backend));
  const budget = new ByteBudget(MAX_BYTES);
  const moved = opened.move();
  return {
    weixin,
    store,
    budget,
    parts: {
      weixin: weixin.client,
      store: store.store,
      budget,
      buffers: new BodyBuffers(MAX_BYTES),
      partSizeBytes: PART_SIZE_BYTES,
      maxBytes: MAX_BYTES,
      now: testClock().now,
      ...more,
    },
    [Symbol.asyncDispose]: () => moved.disposeAsync(),
  };
}

function jobFor({ mediaId, format }: SimulatedMedia): MediaJob {
  return testJob({ mediaId, kind: SAMPLE_FORMATS[format].kind });
}

/** A WeChat that gives this body to whoever asks, and says whether it was let go of. */
function giving(body: Partial<MediaBody>): Pick<ArchiveParts, 'weixin'> & { readonly discarded: () => boolean } {
  let discarded = false;
  const discard = (): void => {
    discarded = true;
  };
  const whole: MediaBody = { chunks: chunksOf(Buffer.alloc(0)), isEndUnproven: false, discard, ...body };
  return { weixin: { fetch: async () => succeed(whole) }, discarded: () => discarded };
}

/** What lies in the bucket of a media, whatever it is called. */
async function keysOf({ store }: Bench, job: MediaJob): Promise<string[]> {
  return (await Array.fromAsync(store.store.list(mediaKeyStem(job), never))).map(({ key }) => key);
}

/** Nothing of the media is left: no object, no upload, no bytes set aside. */
async function expectNothingLeft(bench: Bench, job: MediaJob): Promise<void> {
  expect(await keysOf(bench, job)).toEqual([]);
  expect(await bench.store.openUploads(mediaKeyStem(job))).toEqual([]);
  expect({ used: bench.budget.usedBytes, waiting: bench.budget.waiting }).toEqual({ used: 0, waiting: 0 });
}

function stored(result: Result<ArchivedObject>): ArchivedObject {
  if (!result.ok) throw new Error(result.failure.code);
  return result.value;
}

describe('a media', () => {
  test.each(Object.entries(SAMPLE_FORMATS) as [SampleFormat, { contentType: string; extension: string }][])(
    'that is %s lies at its key with its bytes, its type and its hash',
    async (format, { contentType, extension }) => {
      await using bench = await openBench();
      const media = bench.weixin.simulator.addMedia({ appId: APP_ID, format, sizeBytes: 40_000 });
      const job = jobFor(media);
      const archived = stored(await archiveMedia(bench.parts, job, never));
      const sniffed = format === 'silk' ? 'silk' : extension;
      expect(archived).toMatchObject({
        key: `${mediaKeyStem(job)}.${sniffed}`,
        sizeBytes: 40_000,
        sha256: media.bytes.sha256,
        metadata: { 'source-type': contentType },
        contentType: format === 'silk' ? 'audio/silk' : contentType,
        created: true,
      });
      expect(sha256Of((await bench.store.bytesAt(archived.key)) ?? Buffer.from(''))).toBe(media.bytes.sha256);
      expect(await bench.store.store.head(archived.key, never)).toMatchObject({
        value: {
          contentType: archived.contentType,
          metadata: {
            'media-id': media.mediaId,
            sha256: media.bytes.sha256,
            'archived-at': '2026-06-15T12:00:00.000Z',
          },
        },
      });
      expect(bench.budget.usedBytes).toBe(0);
    },
  );

  test.each<[string, number, FaultAction | undefined, 'PutObject' | 'UploadPart']>([
    ['of a known length up to a part', PART_SIZE_BYTES, undefined, 'PutObject'],
    ['of a known length beyond a part', PART_SIZE_BYTES + 1, undefined, 'UploadPart'],
    ['of many parts', 4 * PART_SIZE_BYTES + 9, undefined, 'UploadPart'],
    ['of no known length up to a part', PART_SIZE_BYTES, { type: 'no-length', framing: 'chunked' }, 'PutObject'],
    ['of no known length beyond a part', PART_SIZE_BYTES + 1, { type: 'no-length', framing: 'chunked' }, 'UploadPart'],
  ])('%s arrives whole, in one piece if it fits', async (_what, sizeBytes, action, operation) => {
    await using bench = await openBench();
    const { simulator } = bench.weixin;
    const media = simulator.addMedia({ appId: APP_ID, format: 'mp4', sizeBytes });
    if (action !== undefined) simulator.arm({ endpoint: 'media', action });
    const archived = stored(await archiveMedia(bench.parts, jobFor(media), never));
    expect(archived).toMatchObject({ sizeBytes, sha256: media.bytes.sha256 });
    expect(sha256Of((await bench.store.bytesAt(archived.key)) ?? Buffer.from(''))).toBe(media.bytes.sha256);
    const whole = operation === 'PutObject';
    expect(bench.store.proxy.count('PutObject')).toBe(whole ? 1 : 0);
    expect(bench.store.proxy.count('UploadPart')).toBe(whole ? 0 : Math.ceil(sizeBytes / PART_SIZE_BYTES));
    expect(await bench.store.openUploads()).toEqual([]);
  });

  test('that is archived twice lies there once', async () => {
    await using bench = await openBench();
    const media = bench.weixin.simulator.addMedia({ appId: APP_ID, format: 'jpeg' });
    const job = jobFor(media);
    const [one, other] = [await archiveMedia(bench.parts, job, never), await archiveMedia(bench.parts, job, never)];
    expect(stored(other)).toMatchObject({ key: stored(one).key, sha256: stored(one).sha256 });
    expect(await keysOf(bench, job)).toEqual([stored(one).key]);
  });
});

describe('nothing lies in the bucket when WeChat gives', () => {
  const MP4_BYTES = 3 * PART_SIZE_BYTES;

  test.each<[string, FaultAction, FailureCode]>([
    ['an error', { type: 'errcode', errcode: 40007 }, 'invalid-media-id'],
    ['an error dressed as an image', { type: 'json-in-disguise', errcode: 40007 }, 'invalid-media-id'],
    ['a page', { type: 'html', status: 200 }, 'weixin-bad-gateway'],
    ['an empty body', { type: 'empty' }, 'body-empty'],
    ['the first few bytes', { type: 'truncate', afterBytes: 10 }, 'body-truncated'],
    ['all but the last byte', { type: 'truncate', afterBytes: MP4_BYTES - 1 }, 'body-truncated'],
    ['two parts and a half', { type: 'truncate', afterBytes: 2.5 * PART_SIZE_BYTES }, 'body-truncated'],
    ['headers and nothing more', { type: 'hang', where: 'body' }, 'weixin-timeout'],
    ['another text', { type: 'text', body: 'busy' }, 'weixin-unexpected-reply'],
  ])('%s: %s', async (_what, action, code) => {
    await using bench = await openBench({}, action.type === 'hang' ? { idleMs: 500 } : {});
    const { simulator } = bench.weixin;
    const media = simulator.addMedia({ appId: APP_ID, format: 'mp4', sizeBytes: MP4_BYTES });
    simulator.arm({ endpoint: 'media', action });
    const job = jobFor(media);
    const archived = await archiveMedia(bench.parts, job, never);
    expect(archived.ok ? 'archived' : archived.failure.code).toBe(code);
    await expectNothingLeft(bench, job);
  });

  test.each<[string, number, number]>([
    ['fewer bytes than it announced', 1_000, 999],
    ['more bytes than it announced', 1_000, 1_001],
    ['many more bytes than it announced', 1_000, 3 * PART_SIZE_BYTES],
    ['no bytes although it announced some', 1_000, 0],
  ])('%s', async (_what, contentLength, sizeBytes) => {
    const { weixin, discarded } = giving({ contentLength, chunks: chunksOf(someBytes(sizeBytes)) });
    await using bench = await openBench({ weixin });
    const job = testJob();
    expect(await archiveMedia(bench.parts, job, never)).toMatchObject({ failure: { code: 'body-truncated' } });
    expect(discarded()).toBe(true);
    expect(bench.store.proxy.seen).toEqual([]);
    await expectNothingLeft(bench, job);
  });

  test('more than is allowed, before a byte is read or set aside', async () => {
    let read = false;
    async function* chunks(): AsyncIterable<Uint8Array> {
      read = true;
      yield Buffer.alloc(1);
    }
    const { weixin, discarded } = giving({ contentLength: MAX_BYTES + 1, chunks: chunks() });
    await using bench = await openBench({ weixin });
    using _all = await bench.budget.reserve(MAX_BYTES, never);
    expect(await archiveMedia(bench.parts, testJob(), never)).toMatchObject({ failure: { code: 'media-too-large' } });
    expect({ read, discarded: discarded(), waiting: bench.budget.waiting }).toEqual({
      read: false,
      discarded: true,
      waiting: 0,
    });
  });
});

describe('an attempt', () => {
  test('passes on what WeChat says', async () => {
    const away: Result<MediaBody> = { ok: false, failure: failure('quota-exhausted', { errcode: 45009 }) };
    await using bench = await openBench({ weixin: { fetch: async () => away } });
    expect(await archiveMedia(bench.parts, testJob(), never)).toEqual(away);
    expect(bench.store.proxy.seen).toEqual([]);
  });

  test.each([1_000, 2 * PART_SIZE_BYTES])('of %i bytes passes on what the store says', async (sizeBytes) => {
    const { weixin, discarded } = giving({ contentLength: sizeBytes, chunks: chunksOf(someBytes(sizeBytes)) });
    await using bench = await openBench({ weixin });
    const denied = { type: 'answer', status: 403, code: 'AccessDenied' } as const;
    bench.store.proxy.arm(() => true, denied);
    const job = testJob();
    expect(await archiveMedia(bench.parts, job, never)).toMatchObject({ failure: { code: 'store-denied' } });
    expect(discarded()).toBe(true);
    expect(bench.budget.usedBytes).toBe(0);
  });

  test('that meets a defect lets go of its body and its bytes, and lets the defect be seen', async () => {
    async function* chunks(): AsyncIterable<Uint8Array> {
      yield Buffer.alloc(10);
      throw new TypeError('a defect');
    }
    const { weixin, discarded } = giving({ contentLength: 1_000, chunks: chunks() });
    await using bench = await openBench({ weixin });
    await expect(archiveMedia(bench.parts, testJob(), never)).rejects.toThrow(TypeError);
    expect({ discarded: discarded(), used: bench.budget.usedBytes }).toEqual({ discarded: true, used: 0 });
  });

  test.each<[string, number | undefined, 'PutObject' | 'UploadPart' | 'CompleteMultipartUpload']>([
    ['while it sends its bytes', 300_000, 'PutObject'],
    ['while it sends parts', undefined, 'UploadPart'],
    ['while it completes its parts', undefined, 'CompleteMultipartUpload'],
  ])('that is stopped %s throws the reason and leaves nothing', async (_what, contentLength, operation) => {
    const bytes = someBytes(contentLength ?? 2 * PART_SIZE_BYTES + 1);
    const { weixin, discarded } = giving({
      chunks: chunksOf(bytes),
      ...(contentLength === undefined ? {} : { contentLength }),
    });
    await using bench = await openBench({ weixin });
    const hung = bench.store.proxy.arm(operation, { type: 'hang', where: 'before' });
    const controller = new AbortController();
    const job = testJob();
    const archiving = archiveMedia(bench.parts, job, controller.signal);
    await eventually(() => (hung.met > 0 ? true : undefined));
    const reason = new Error('stop');
    controller.abort(reason);
    await expect(archiving).rejects.toBe(reason);
    expect(discarded()).toBe(true);
    await expectNothingLeft(bench, job);
  });

  test('that is stopped while it waits for memory throws the reason and has read nothing', async () => {
    const { weixin, discarded } = giving({ contentLength: 1_000, chunks: chunksOf(someBytes(1_000)) });
    await using bench = await openBench({ weixin });
    const all = await bench.budget.reserve(MAX_BYTES, never);
    const controller = new AbortController();
    const archiving = archiveMedia(bench.parts, testJob(), controller.signal);
    await eventually(() => (bench.budget.waiting === 1 ? true : undefined));
    const reason = new Error('stop');
    controller.abort(reason);
    await expect(archiving).rejects.toBe(reason);
    all.release();
    expect({ discarded: discarded(), used: bench.budget.usedBytes }).toEqual({ discarded: true, used: 0 });
  });

  test('that fails half way through its parts succeeds when it is done again', async () => {
    await using bench = await openBench();
    const { simulator } = bench.weixin;
    const media = simulator.addMedia({ appId: APP_ID, format: 'mp4', sizeBytes: 3 * PART_SIZE_BYTES });
    simulator.arm({ endpoint: 'media', times: 1, action: { type: 'truncate', afterBytes: 2.5 * PART_SIZE_BYTES } });
    const job = jobFor(media);
    expect(await archiveMedia(bench.parts, job, never)).toMatchObject({ failure: { code: 'body-truncated' } });
    expect(await keysOf(bench, job)).toEqual([]);
    expect(stored(await archiveMedia(bench.parts, job, never)).sha256).toBe(media.bytes.sha256);
  });
});

describe('however slow the store is', () => {
  /** Bodies whose bytes are counted as they are taken. */
  interface CountedBodies {
    readonly weixin: ArchiveParts['weixin'];
    takenBytes(): number;
    /** How many bodies have been begun. */
    begun(): number;
  }

  function countedBodies(sizeBytes: number, announced: boolean, onChunk: () => void): CountedBodies {
    const chunk = someBytes(64 * 1024);
    let takenBytes = 0;
    let begun = 0;
    async function* chunks(): AsyncIterable<Uint8Array> {
      begun += 1;
      for (let left = sizeBytes; left > 0; left -= chunk.byteLength) {
        const next = chunk.subarray(0, left);
        takenBytes += next.byteLength;
        onChunk();
        yield next;
      }
    }
    return {
      weixin: {
        fetch: async () =>
          succeed({
            chunks: chunks(),
            isEndUnproven: false,
            discard: () => undefined,
            ...(announced ? { contentLength: sizeBytes } : {}),
          }),
      },
      takenBytes: () => takenBytes,
      begun: () => begun,
    };
  }

  /** The bytes that the store has answered for. */
  function answeredBytes({ store }: Bench): number {
    return store.proxy.seen
      .filter(({ status, operation }) => status === 200 && (operation === 'PutObject' || operation === 'UploadPart'))
      .reduce((sum, { headers }) => sum + Number(headers['content-length']), 0);
  }

  test.each([
    {
      what: 'streams',
      count: 4,
      sizeBytes: 5 * PART_SIZE_BYTES,
      announced: true,
      atOnce: 2,
      budgetParts: 2 * PARTS_HELD,
    },
    {
      what: 'streams of no known length',
      count: 4,
      sizeBytes: 5 * PART_SIZE_BYTES,
      announced: false,
      atOnce: 2,
      budgetParts: 2 * PARTS_HELD,
    },
    {
      what: 'bodies that fit a part',
      count: 12,
      sizeBytes: PART_SIZE_BYTES / 2,
      announced: true,
      atOnce: 4,
      budgetParts: 2,
    },
    {
      what: 'streams larger than the budget',
      count: 2,
      sizeBytes: 5 * PART_SIZE_BYTES,
      announced: true,
      atOnce: 1,
      budgetParts: PARTS_HELD,
    },
  ])('$what in flight stay within the budget', async ({ count, sizeBytes, announced, atOnce, budgetParts }) => {
    const budget = new ByteBudget(budgetParts * PART_SIZE_BYTES);
    let peakBytes = 0;
    let peakUsedBytes = 0;
    const bodies = countedBodies(sizeBytes, announced, () => {
      peakBytes = Math.max(peakBytes, bodies.takenBytes() - answeredBytes(bench));
      peakUsedBytes = Math.max(peakUsedBytes, budget.usedBytes);
    });
    await using bench = await openBench({ weixin: bodies.weixin, budget });
    const held = bench.store.proxy.arm(({ operation }) => operation === 'PutObject' || operation === 'UploadPart', {
      type: 'hold-answer',
    });
    const inFlight = sizeBytes > PART_SIZE_BYTES ? 2 * atOnce : atOnce;
    const archiving = Array.from({ length: count }, () => archiveMedia(bench.parts, testJob(), never));
    await eventually(() => (held.met === inFlight && budget.waiting === count - atOnce ? true : undefined));
    expect(bodies.begun()).toBe(atOnce);
    held.release();
    const archived = await Promise.all(archiving);
    expect(archived.filter(({ ok }) => !ok)).toEqual([]);
    expect(bodies.takenBytes()).toBe(count * sizeBytes);
    expect(peakUsedBytes).toBeGreaterThan(0);
    expect(peakUsedBytes).toBeLessThanOrEqual(budget.totalBytes);
    expect(peakBytes).toBeLessThanOrEqual(budget.totalBytes);
    expect({ used: budget.usedBytes, waiting: budget.waiting }).toEqual({ used: 0, waiting: 0 });
  });
});

test('a source that throws a failure is told as that failure', async () => {
  async function* chunks(): AsyncIterable<Uint8Array> {
    yield Buffer.alloc(1_000);
    throw new FailureError(failure('weixin-timeout', { detail: 'idle' }));
  }
  for (const contentLength of [undefined, 2_000, 2 * PART_SIZE_BYTES]) {
    const { weixin } = giving({ chunks: chunks(), ...(contentLength === undefined ? {} : { contentLength }) });
    await using bench = await openBench({ weixin });
    const job = testJob();
    expect(await archiveMedia(bench.parts, job, never)).toEqual({
      ok: false,
      failure: { code: 'weixin-timeout', detail: 'idle' },
    });
    await expectNothingLeft(bench, job);
  }
});
