import { describe, expect, test } from 'vitest';
import { freePort } from '../../src/demo/redis-server.ts';
import type { FaultAction } from '../../src/demo/weixin/fault.ts';
import { FAILURES, type FailureCode, FailureError } from '../../src/failure.ts';
import type { MediaBody } from '../../src/weixin/media-body.ts';
import { eventually } from '../support/eventually.ts';
import { APP_ID, APP_SECRET, OTHER_APP_ID, testJob } from '../support/jobs.ts';
import { openWeixinBench, readAll, type WeixinBench, type WeixinBenchOptions } from '../support/weixin.ts';

const never = new AbortController().signal;

interface Fetched {
  readonly code: FailureCode | 'media';
  readonly bytes?: Buffer;
  readonly text: string;
}

/** Fetches and reads a body to its end; says how either went. */
async function fetchAll(bench: WeixinBench, mediaId: string, signal = never): Promise<Fetched> {
  const fetched = await bench.client.fetch(testJob({ mediaId }), signal);
  if (!fetched.ok) return { code: fetched.failure.code, text: JSON.stringify(fetched.failure) };
  try {
    return {
      code: 'media',
      bytes: await readAll(fetched.value),
      text: JSON.stringify({ ...fetched.value, chunks: undefined }),
    };
  } catch (error) {
    if (error instanceof FailureError) return { code: error.failure.code, text: JSON.stringify(error.failure) };
    throw error;
  }
}

interface Case {
  readonly what: string;
  readonly action: FaultAction;
  readonly times?: number;
  readonly becomes: FailureCode | 'media';
  readonly options?: WeixinBenchOptions;
}

const soon: WeixinBenchOptions = { timeouts: { responseMs: 400, idleMs: 400, totalMs: 5_000 } };

const CASES: readonly Case[] = [
  { what: '-1 three times', action: { type: 'errcode', errcode: -1 }, times: 3, becomes: 'media' },
  { what: '-1 more often than an attempt tries', action: { type: 'errcode', errcode: -1 }, becomes: 'weixin-busy' },
  { what: '40001 once', action: { type: 'errcode', errcode: 40001 }, times: 1, becomes: 'media' },
  { what: '42001 twice', action: { type: 'errcode', errcode: 42001 }, times: 2, becomes: 'media' },
  { what: '40014 for ever', action: { type: 'errcode', errcode: 40014 }, becomes: 'token-rejected' },
  { what: '45009', action: { type: 'errcode', errcode: 45009 }, becomes: 'quota-exhausted' },
  { what: '45011', action: { type: 'errcode', errcode: 45011 }, becomes: 'rate-limited' },
  {
    what: 'an errcode as a string',
    action: { type: 'errcode', errcode: 48001, asString: true },
    becomes: 'api-unauthorized',
  },
  { what: 'a body cut short', action: { type: 'truncate' }, becomes: 'body-truncated' },
  {
    what: 'a body cut within its first bytes',
    action: { type: 'truncate', afterBytes: 10 },
    becomes: 'body-truncated',
  },
  { what: 'a reset before the answer, once', action: { type: 'reset' }, times: 1, becomes: 'media' },
  { what: 'resets for ever', action: { type: 'reset' }, becomes: 'weixin-unreachable' },
  { what: 'no headers', action: { type: 'hang', where: 'headers' }, becomes: 'weixin-timeout', options: soon },
  {
    what: 'headers and nothing more',
    action: { type: 'hang', where: 'body' },
    becomes: 'weixin-timeout',
    options: soon,
  },
  {
    what: 'a drip that never stops coming, by the total time',
    action: { type: 'drip', chunkBytes: 1, everyMs: 50 },
    becomes: 'weixin-timeout',
    options: { timeouts: { idleMs: 10_000, totalMs: 700 } },
  },
  { what: 'a drip that ends in time', action: { type: 'drip', chunkBytes: 5_000, everyMs: 1 }, becomes: 'media' },
  { what: 'an empty body', action: { type: 'empty' }, becomes: 'body-empty' },
  {
    what: 'good bytes as text/plain',
    action: { type: 'wrong-type', contentType: 'text/plain', disposition: false },
    becomes: 'media',
  },
  {
    what: 'good bytes as JSON',
    action: { type: 'wrong-type', contentType: 'application/json', disposition: true },
    becomes: 'media',
  },
  {
    what: 'an error dressed as an image',
    action: { type: 'json-in-disguise', errcode: 40007 },
    becomes: 'invalid-media-id',
  },
  { what: 'a page with 502', action: { type: 'html', status: 502 }, becomes: 'weixin-bad-gateway' },
  { what: 'a page with 200', action: { type: 'html', status: 200 }, becomes: 'weixin-bad-gateway' },
  { what: 'chunks without a length', action: { type: 'no-length', framing: 'chunked' }, becomes: 'media' },
  { what: 'a body that ends with its connection', action: { type: 'no-length', framing: 'close' }, becomes: 'media' },
  { what: 'bytes that a proxy has compressed', action: { type: 'gzip' }, becomes: 'media' },
  { what: 'an empty object', action: { type: 'text', body: '{}' }, becomes: 'weixin-unexpected-reply' },
  {
    what: 'a redirect, which is not followed',
    action: { type: 'redirect', location: 'http://127.0.0.1:9/' },
    becomes: 'weixin-bad-gateway',
  },
];

describe('media/get answers', () => {
  test.each(CASES)('$what: $becomes', async ({ action, times, becomes, options }) => {
    await using bench = await openWeixinBench(options);
    const media = bench.simulator.addMedia({ appId: APP_ID, format: 'jpeg', sizeBytes: 50_000 });
    bench.simulator.arm({
      endpoint: 'media',
      mediaId: media.mediaId,
      action,
      ...(times === undefined ? {} : { times }),
    });
    const fetched = await fetchAll(bench, media.mediaId);
    expect(fetched.code).toBe(becomes);
    if (becomes === 'media') expect(fetched.bytes?.equals(Buffer.concat([...media.bytes.chunks()]))).toBe(true);
  });
});

test('a socket that went stale while it was idle costs a second try on a fresh one', async () => {
  await using bench = await openWeixinBench();
  const first = bench.simulator.addMedia({ appId: APP_ID, format: 'jpeg' });
  expect((await fetchAll(bench, first.mediaId)).code).toBe('media');
  bench.simulator.arm({ endpoint: 'media', action: { type: 'stale-socket' } });
  const second = bench.simulator.addMedia({ appId: APP_ID, format: 'jpeg' });
  expect((await fetchAll(bench, second.mediaId)).code).toBe('media');
});

test('the total time also ends a download that we do not read', async () => {
  await using bench = await openWeixinBench({ timeouts: { idleMs: 20_000, totalMs: 300 } });
  const { mediaId } = bench.simulator.addMedia({ appId: APP_ID, format: 'mp4', sizeBytes: 20_000_000 });
  const fetched = await bench.client.fetch(testJob({ mediaId }), never);
  if (!fetched.ok) throw new Error(fetched.failure.code);
  const chunks = fetched.value.chunks[Symbol.asyncIterator]();
  await chunks.next();
  expect(await eventually(() => failureOfNext(chunks))).toBe('weixin-timeout');
});

async function failureOfNext(chunks: AsyncIterator<Uint8Array>): Promise<string | undefined> {
  try {
    await chunks.next();
    return undefined;
  } catch (error) {
    return error instanceof FailureError ? error.failure.code : 'unknown';
  }
}

test('a media above the size limit ends where the limit is passed', async () => {
  await using bench = await openWeixinBench({ maxBytes: 100_000 });
  const { mediaId } = bench.simulator.addMedia({ appId: APP_ID, format: 'mp4', sizeBytes: 100_001 });
  bench.simulator.arm({ endpoint: 'media', action: { type: 'no-length', framing: 'chunked' } });
  expect((await fetchAll(bench, mediaId)).code).toBe('media-too-large');
});

describe('a stop', () => {
  test.each(['headers', 'body'] as const)('while WeChat is silent in the %s throws its reason', async (where) => {
    await using bench = await openWeixinBench();
    const { mediaId } = bench.simulator.addMedia({ appId: APP_ID, format: 'jpeg' });
    bench.simulator.arm({ endpoint: 'media', action: { type: 'hang', where } });
    const stop = new AbortController();
    const reason = new Error('stopped');
    const fetching = fetchAll(bench, mediaId, stop.signal);
    await eventually(() => bench.simulator.counts.media.get(mediaId));
    stop.abort(reason);
    await expect(fetching).rejects.toBe(reason);
  });

  test('before the start throws its reason and asks nobody', async () => {
    await using bench = await openWeixinBench();
    const { mediaId } = bench.simulator.addMedia({ appId: APP_ID, format: 'jpeg' });
    const reason = new Error('stopped');
    await expect(fetchAll(bench, mediaId, AbortSignal.abort(reason))).rejects.toBe(reason);
    expect(bench.simulator.counts.media.get(mediaId)).toBeUndefined();
  });
});

test('an app without a credential is not configured', async () => {
  await using bench = await openWeixinBench();
  const fetched = await bench.client.fetch(testJob({ appId: OTHER_APP_ID }), never);
  expect(fetched).toMatchObject({ ok: false, failure: { code: 'app-not-configured', detail: OTHER_APP_ID } });
});

test('the token is in no failure, whatever a lying server echoes', async () => {
  await using bench = await openWeixinBench();
  const { mediaId } = bench.simulator.addMedia({ appId: APP_ID, format: 'jpeg' });
  const token = (await bench.token()).reveal();
  const echoes: FaultAction[] = [
    { type: 'errcode', errcode: 45009, errmsg: `over quota: ${token}` },
    { type: 'text', body: `your token ${token}` },
    { type: 'text', body: `<html>${token}</html>`, contentType: 'text/html' },
    { type: 'text', body: `{"token":"${token}"}` },
  ];
  for (const action of echoes) {
    bench.simulator.disarm();
    bench.simulator.arm({ endpoint: 'media', action });
    const { code, text } = await fetchAll(bench, mediaId);
    expect(code).not.toBe('media');
    expect(text).not.toContain(token);
  }
});

test('HD voice is asked for at its own address', async () => {
  await using bench = await openWeixinBench();
  const { mediaId } = bench.simulator.addMedia({ appId: APP_ID, format: 'speex' });
  const fetched = await bench.client.fetch(testJob({ mediaId, variant: 'hd-voice' }), never);
  expect(fetched).toMatchObject({ ok: true, value: { declaredType: 'voice/speex' } });
  if (fetched.ok) fetched.value.discard();
});

describe('HD voice', () => {
  test.each(['amr', 'silk'] as const)(
    'of a voice in %s has bytes of its own, and leaves the voice as it is',
    async (format) => {
      await using bench = await openWeixinBench();
      const voice = bench.simulator.addMedia({ appId: APP_ID, format });
      const [plain, hd] = await Promise.all(
        [{}, { variant: 'hd-voice' } as const].map(async (variant) => {
          const job = testJob({ mediaId: voice.mediaId, kind: 'voice', ...variant });
          const fetched = await bench.client.fetch(job, never);
          if (!fetched.ok) throw new Error(fetched.failure.code);
          return { ...fetched.value, bytes: await readAll(fetched.value) };
        }),
      );
      expect(plain).toMatchObject({ declaredType: 'audio/amr', namedExtension: 'amr' });
      expect(plain?.bytes.equals(Buffer.concat([...voice.bytes.chunks()]))).toBe(true);
      expect(hd).toMatchObject({ declaredType: 'voice/speex', namedExtension: 'speex' });
      expect(hd).not.toHaveProperty('sniffed');
      expect(hd?.bytes.byteLength).toBe(2 * voice.bytes.sizeBytes);
    },
  );

  test('of what is no voice is not known', async () => {
    await using bench = await openWeixinBench();
    const { mediaId } = bench.simulator.addMedia({ appId: APP_ID, format: 'jpeg' });
    const fetched = await bench.client.fetch(testJob({ mediaId, variant: 'hd-voice' }), never);
    expect(fetched).toMatchObject({ ok: false, failure: { code: 'invalid-media-id', errcode: 40007 } });
  });

  test.each([48001, 45009])('that %i refuses to an app closes no gate: its other media come', async (errcode) => {
    await using bench = await openWeixinBench();
    bench.simulator.addApp({ appId: APP_ID, secret: APP_SECRET, hdVoice: false });
    const { mediaId } = bench.simulator.addMedia({ appId: APP_ID, format: 'amr' });
    if (errcode !== 48001)
      bench.simulator.arm({ endpoint: 'media', mediaId, action: { type: 'errcode', errcode }, times: 1 });
    const fetched = await bench.client.fetch(testJob({ mediaId, kind: 'voice', variant: 'hd-voice' }), never);
    expect(fetched).toMatchObject({ ok: false, failure: { code: 'hd-voice-refused', errcode } });
    expect(FAILURES['hd-voice-refused'].action).toBe('retry');
    expect((await fetchAll(bench, mediaId)).code).toBe('media');
  });
});

describe('when the first host can not be reached', () => {
  test('the next is used, and at once from then on', async () => {
    const deadPort = await freePort();
    await using bench = await openWeixinBench({ hosts: (url) => [`http://127.0.0.1:${deadPort}`, url] });
    for (let count = 0; count < 2; count += 1) {
      const { mediaId } = bench.simulator.addMedia({ appId: APP_ID, format: 'jpeg' });
      expect((await fetchAll(bench, mediaId)).code).toBe('media');
    }
  });
});

test('a body that is dropped lets go of its connection', async () => {
  await using bench = await openWeixinBench();
  const { mediaId } = bench.simulator.addMedia({ appId: APP_ID, format: 'mp4', sizeBytes: 30_000_000 });
  const bodies: MediaBody[] = [];
  for (let count = 0; count < 20; count += 1) {
    const fetched = await bench.client.fetch(testJob({ mediaId }), never);
    if (fetched.ok) bodies.push(fetched.value);
    // More than the pool has connections: it would stand still if one were not given back.
    fetched.ok && fetched.value.discard();
  }
  expect(bodies).toHaveLength(20);
});
