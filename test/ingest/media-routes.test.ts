import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { laneOf } from '../../src/queue/lane.ts';
import { DAY, HOUR, iso } from '../../src/time.ts';
import { eventually } from '../support/eventually.ts';
import { openIngest, problemIn, type TestIngest } from '../support/ingest.ts';
import { APP_ID, OTHER_APP_ID, testJob } from '../support/jobs.ts';
import { testLanes } from '../support/queue.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

let corner: TestRedis;
let ingest: TestIngest;

beforeAll(async () => {
  corner = await openTestRedis();
  ingest = await openIngest({ REDIS_URL: corner.url, QUEUE_PREFIX: corner.prefix });
  await ingest.ready();
});

afterAll(async () => {
  await ingest.stop();
  await corner[Symbol.asyncDispose]();
});

async function queued(mediaId: string): Promise<unknown> {
  const lanes = testLanes(corner);
  try {
    const job = await lanes.lane(laneOf(APP_ID)).peek(mediaId);
    return job === undefined ? undefined : JSON.parse(job.data);
  } finally {
    await lanes.close();
  }
}

describe('POST /v1/media', () => {
  test('queues one job, durably, before it answers; the same again is a duplicate', async () => {
    const job = testJob({ labels: { note: 'x' }, source: { messageId: '23456789012345678' } });
    const response = await ingest.post('/v1/media', job);
    expect(response.status).toBe(202);
    expect(response.headers.get('content-type')).toMatch(/^application\/json/);
    expect(await response.json()).toEqual({ accepted: 1, duplicates: 0, rejected: [] });
    expect(await queued(`${APP_ID}-${job.mediaId}`)).toEqual(job);
    const again = await ingest.post('/v1/media', { items: [job] });
    expect([again.status, await again.json()]).toEqual([202, { accepted: 0, duplicates: 1, rejected: [] }]);
  });

  test('queues many, and lists those that are none by their place', async () => {
    const jobs = Array.from({ length: 998 }, () => testJob());
    const items = [...jobs.slice(0, 5), { v: 2 }, ...jobs.slice(5), testJob({ appId: OTHER_APP_ID })];
    const response = await ingest.post('/v1/media', { items });
    expect(response.status).toBe(202);
    expect(await response.json()).toEqual({
      accepted: 998,
      duplicates: 0,
      rejected: [
        { index: 5, mistakes: expect.arrayContaining([expect.stringMatching(/^v: /)]) },
        { index: 999, mistakes: [`appId: ${OTHER_APP_ID} is not configured`] },
      ],
    });
  });

  test.each([
    '"__proto__":{"polluted":1}',
    '"constructor":{"prototype":{"polluted":1}}',
    '"source":{"__proto__":{"messageId":"1"}}',
    '"labels":{"__proto__":"x"}',
    '"labels":{"constructor":{"prototype":{"polluted":1}}}',
  ])('refuses an item with %s, alone, and nothing is polluted', async (field) => {
    const [job, other] = [testJob(), testJob()].map((one) => JSON.stringify(one));
    const response = await ingest.post('/v1/media', `{"items":[${job},${job?.slice(0, -1)},${field}},${other}]}`);
    expect([response.status, await response.json()]).toEqual([
      202,
      { accepted: 2, duplicates: 0, rejected: [{ index: 1, mistakes: [expect.any(String)] }] },
    ]);
    for (const body of [`{"items":[${job}],${field}}`, `{${field}}`, `${other?.slice(0, -1)},${field}}`]) {
      expect(await problemIn(await ingest.post('/v1/media', body))).toMatchObject({ status: 400 });
    }
    expect({}).not.toHaveProperty('polluted');
  });

  test('takes a label that is named constructor', async () => {
    const job = testJob({ labels: { constructor: 'x' } });
    expect((await ingest.post('/v1/media', job)).status).toBe(202);
    expect(await queued(`${APP_ID}-${job.mediaId}`)).toEqual(job);
  });

  test('counts one media twice in a request as one and a duplicate', async () => {
    const job = testJob();
    const response = await ingest.post('/v1/media', { items: [job, job, job] });
    expect(await response.json()).toEqual({ accepted: 1, duplicates: 2, rejected: [] });
  });

  test('gives each of many callers at once its own answer', async () => {
    const jobs = Array.from({ length: 60 }, () => testJob());
    const answers = await Promise.all(
      jobs.map(async (job, at) => {
        const body = at % 3 === 0 ? { ...job, kind: 'odd' } : at % 3 === 1 ? job : { items: [job, job] };
        return (await (await ingest.post('/v1/media', body)).json()) as Record<string, unknown>;
      }),
    );
    for (const [at, answer] of answers.entries()) {
      const [accepted, duplicates, rejected] =
        [
          [0, 0, 1],
          [1, 0, 0],
          [1, 1, 0],
        ][at % 3] ?? [];
      expect(answer).toMatchObject({ accepted, duplicates });
      expect(answer['rejected']).toHaveLength(rejected ?? 0);
    }
  });

  test.each([
    ['an app that is not configured', testJob({ appId: OTHER_APP_ID }), /is not configured/],
    ['a misspelt field', { ...testJob(), mediaID: 'x' }, /mediaID/],
    ['a time to come', testJob({ receivedAt: iso(Date.now() + HOUR) }), /future/],
    ['an array', [testJob()], /expected object/],
    ['a number', 7, /expected object/],
    ['null', null, /expected object/],
    ['many, each of them wrong', { items: [{}, { v: 1 }] }, /appId/],
  ])('refuses %s with 400 and every mistake', async (_what, body, mistake) => {
    const problem = await problemIn(await ingest.post('/v1/media', body));
    expect(problem).toMatchObject({ status: 400, accepted: 0, duplicates: 0 });
    expect(JSON.stringify(problem['rejected'])).toMatch(mistake);
  });

  test.each([
    ['no items', { items: [] }],
    ['1,001 items', { items: Array.from({ length: 1_001 }, () => 1) }],
    ['items that are no list', { items: 'x' }],
    ['items and something more', { items: [testJob()], all: true }],
    ['items and a job', { ...testJob(), items: [testJob()] }],
  ])('refuses %s with 400', async (_what, body) => {
    expect(await problemIn(await ingest.post('/v1/media', body))).toMatchObject({
      status: 400,
      mistakes: [expect.any(String)],
    });
  });

  test('never repeats an openId, neither in an answer nor in the log', async () => {
    const openId = 'o-OPEN-ID-OF-SOMEBODY';
    await ingest.post('/v1/media', { ...testJob(), source: { openId } });
    const wrong = await ingest.post('/v1/media', { ...testJob(), source: { openId, x: 1 }, v: openId });
    expect(await wrong.text()).not.toContain(openId);
    const broken = await ingest.post('/v1/media', `{"source":{"openId":"${openId}"`);
    expect(await broken.text()).not.toContain(openId);
    expect(ingest.log()).not.toContain(openId);
  });

  test('keeps of an openId what the policy says', async () => {
    const key = 'a-key-of-sixteen-or-more';
    const env = { REDIS_URL: corner.url, QUEUE_PREFIX: corner.prefix, ARCHIVE_OPEN_ID_KEY: key };
    await using own = await openIngest(env);
    const job = testJob({ source: { openId: 'o-SOMEBODY' } });
    expect((await own.post('/v1/media', job)).status).toBe(202);
    expect(await queued(`${APP_ID}-${job.mediaId}`)).toMatchObject({
      source: { openId: expect.stringMatching(/^hmac/) },
    });
  });
});

describe('GET /v1/media', () => {
  test('tells where a media is, each of its variants for itself', async () => {
    const job = testJob({ kind: 'voice', mediaId: 'm'.repeat(256), receivedAt: iso(Date.now() - HOUR) });
    await ingest.post('/v1/media', { items: [job, { ...job, variant: 'hd-voice' }] });
    const facts = {
      appId: APP_ID,
      mediaId: job.mediaId,
      state: 'waiting',
      receivedAt: job.receivedAt,
      deadline: iso(Date.parse(job.receivedAt) + 3 * DAY),
      replayed: false,
      attempts: [],
    };
    const hd = { ...facts, variant: 'hd-voice' };
    const path = `/v1/media/${APP_ID}/${job.mediaId}`;
    expect(await (await ingest.ask(path)).json()).toEqual({ items: [facts, hd] });
    expect(await (await ingest.ask(`${path}?variant=hd-voice`)).json()).toEqual({ items: [hd] });
    expect(await (await ingest.ask(`${path}.hd-voice`)).json()).toEqual({ items: [hd] });
  });

  test.each([
    ['nobody knows it', `/v1/media/${APP_ID}/unknown`, 404],
    ['of an app that has none', `/v1/media/${OTHER_APP_ID}/unknown`, 404],
    ['no appId', '/v1/media/wx1/unknown', 400],
    ['no media_id', `/v1/media/${APP_ID}/a%20b`, 400],
    ['a media_id that is too long', `/v1/media/${APP_ID}/${'m'.repeat(257)}`, 400],
    ['a media_id beyond all measure', `/v1/media/${APP_ID}/${'m'.repeat(2_000)}`, 414],
    ['a variant that there is not', `/v1/media/${APP_ID}/x?variant=low`, 400],
    ['a variant twice', `/v1/media/${APP_ID}/x?variant=hd-voice&variant=hd-voice`, 400],
    ['a question that there is not', `/v1/media/${APP_ID}/x?verbose=1`, 400],
  ])('says of %s what is wrong', async (_what, path, status) => {
    expect(await problemIn(await ingest.ask(path))).toMatchObject({ status });
  });
});

test('counts requests and jobs', async () => {
  const own = await openIngest({ REDIS_URL: corner.url, QUEUE_PREFIX: corner.prefix });
  await own.ready();
  const job = testJob();
  await own.post('/v1/media', { items: [job, job, {}] });
  await own.post('/v1/media', '{');
  await own.ask('/v1/nothing/here?secret=1');
  const expected = [
    'weixin_media_ingest_requests_total{route="/v1/media",status="202"} 1',
    'weixin_media_ingest_requests_total{route="/v1/media",status="400"} 1',
    'weixin_media_ingest_requests_total{route="none",status="404"} 1',
    'weixin_media_ingest_seconds_count{route="/v1/media"} 2',
    'weixin_media_ingest_jobs_total{result="accepted"} 1',
    'weixin_media_ingest_jobs_total{result="duplicate"} 1',
    'weixin_media_ingest_jobs_total{result="rejected"} 1',
    'weixin_media_redis_up 1',
  ];
  // A request is counted once its answer has been sent.
  await eventually(async () => {
    const lines = (await (await own.ask('/metrics')).text()).split('\n');
    // They took some time.
    expect(lines).not.toContain('weixin_media_ingest_seconds_sum{route="/v1/media"} 0');
    return expected.every((line) => lines.includes(line)) ? true : undefined;
  });
  await own.stop();
  expect(own.log()).not.toContain('secret=1');
});

test('a token is let ask so often a second, and each for itself', async () => {
  await using own = await openIngest({ REDIS_URL: corner.url, QUEUE_PREFIX: corner.prefix, API_RATE_LIMIT: '1' });
  await own.ready();
  // Even the slowest machine sends two of these within one second.
  const answers = await Promise.all(Array.from({ length: 40 }, () => own.ask('/v1/dead-letters')));
  const limited = answers.find(({ status }) => status === 429);
  if (limited === undefined) throw new Error('none was held up');
  expect(answers.some(({ status }) => status === 200)).toBe(true);
  expect(limited.headers.get('retry-after')).toBe('1');
  expect(await problemIn(limited)).toMatchObject({ status: 429 });
  await Promise.all(answers.filter((answer) => !answer.bodyUsed).map((answer) => answer.arrayBuffer()));
  const health = await Promise.all(Array.from({ length: 5 }, () => own.ask('/metrics')));
  expect(health.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]);
});
