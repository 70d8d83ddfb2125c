import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { type DeadLetter, invalidJobId } from '../../src/dead-letter/dead-letter.ts';
import { createDeadLetterIndex } from '../../src/dead-letter/dead-letter-index.ts';
import { createDeadLetters, type DeadLetters } from '../../src/dead-letter/dead-letters.ts';
import { type MediaJob, mediaJobId } from '../../src/media/media-job.ts';
import { laneOf } from '../../src/queue/lane.ts';
import { deadLetterKey } from '../../src/store/object-keys.ts';
import { DAY, HOUR, iso } from '../../src/time.ts';
import { eventually } from '../support/eventually.ts';
import { openIngest, problemIn, type TestIngest } from '../support/ingest.ts';
import { APP_ID, OTHER_APP_ID, testJob } from '../support/jobs.ts';
import { never, openTestStore, type TestStore, testLanes } from '../support/queue.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

let corner: TestRedis;
let bucket: TestStore;
let deadLetters: DeadLetters;
let ingest: TestIngest;

// The SDK reads them by itself.
beforeAll(() => {
  vi.stubEnv('AWS_ACCESS_KEY_ID', 'test');
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'test');
});

afterAll(() => vi.unstubAllEnvs());

beforeEach(async () => {
  [corner, bucket] = await Promise.all([openTestRedis(), openTestStore()]);
  deadLetters = createDeadLetters(
    bucket.store,
    createDeadLetterIndex(corner.redis, corner.keys, Date.now),
    async () => undefined,
    Date.now,
  );
  ingest = await openIngest(environment());
  await ingest.ready();
});

afterEach(async () => {
  await ingest.stop();
  await bucket[Symbol.asyncDispose]();
  await corner[Symbol.asyncDispose]();
});

function environment(): Record<string, string> {
  return {
    REDIS_URL: corner.url,
    QUEUE_PREFIX: corner.prefix,
    ARCHIVE_BUCKET: bucket.s3.bucket,
    AWS_ENDPOINT_URL_S3: bucket.s3.endpoint,
    AWS_REGION: 'us-east-1',
    S3_FORCE_PATH_STYLE: 'true',
  };
}

let died = Date.now() - HOUR;

/** Gives a media up, as a worker does; each a little later than the one before. */
async function bury(job: MediaJob, fields: Partial<DeadLetter> = {}): Promise<DeadLetter> {
  const { appId, mediaId } = job;
  died += 1;
  const letter: DeadLetter = {
    v: 1,
    appId,
    mediaId,
    job,
    reason: 'invalid-media-id',
    errcode: 40007,
    firstAttemptAt: iso(died),
    diedAt: iso(died),
    deadline: null,
    attempts: [{ at: iso(died), durationMs: 3, failure: 'invalid-media-id', errcode: 40007 }],
    status: 'open',
    replays: [],
    ...fields,
  };
  expect(await deadLetters.bury(mediaJobId(job), deadLetterKey(job), letter, never)).toBeUndefined();
  return letter;
}

function recentJob(fields: Partial<MediaJob> = {}): MediaJob {
  return testJob({ receivedAt: iso(Date.now() - HOUR), ...fields });
}

interface List {
  readonly items: Record<string, unknown>[];
  readonly next?: string;
}

async function list(query = ''): Promise<List> {
  const response = await ingest.ask(`/v1/dead-letters${query}`);
  expect(response.status).toBe(200);
  return (await response.json()) as List;
}

async function names(query = ''): Promise<unknown[]> {
  return (await list(query)).items.map(({ mediaId }) => mediaId);
}

async function letterOf(job: MediaJob): Promise<DeadLetter | undefined> {
  const read = await deadLetters.read(deadLetterKey(job), never);
  if (!read.ok) throw new Error(read.failure.code);
  return read.value;
}

async function isQueued(job: MediaJob): Promise<boolean> {
  const lanes = testLanes(corner);
  const found = await lanes.lane(laneOf(job.appId)).peek(mediaJobId(job));
  await lanes.close();
  return found !== undefined;
}

async function answer(path: string, body: unknown): Promise<Record<string, unknown>> {
  const response = await ingest.post(path, body);
  expect(response.status).toBe(200);
  return (await response.json()) as Record<string, unknown>;
}

describe('the list', () => {
  test('has what the command line has, with every filter', async () => {
    const a = await bury(recentJob({ mediaId: 'a', variant: 'hd-voice' }));
    const b = await bury(recentJob({ mediaId: 'b', appId: OTHER_APP_ID }), {
      reason: 'media-too-large',
      errcode: undefined,
    });
    const c = await bury(recentJob({ mediaId: 'c' }), { reason: 'deadline-exceeded', errcode: -1 });
    const all = await list();
    expect(all).toEqual({ items: [expect.anything(), expect.anything(), expect.anything()] });
    expect(all.items[0]).toEqual({
      jobId: `${APP_ID}-a.hd-voice`,
      key: expect.stringMatching(/^dead-letters\//),
      appId: APP_ID,
      mediaId: 'a',
      variant: 'hd-voice',
      reason: 'invalid-media-id',
      errcode: 40007,
      diedAt: a.diedAt,
      deadline: null,
      attempts: 1,
    });
    const filters: [string, string[]][] = [
      [`?app=${OTHER_APP_ID}`, ['b']],
      ['?app=unknown', []],
      ['?reason=deadline-exceeded', ['c']],
      ['?errcode=-1', ['c']],
      [`?since=${b.diedAt}`, ['b', 'c']],
      [`?until=${b.diedAt}`, ['a', 'b']],
      [`?since=${b.diedAt}&until=${c.diedAt}&app=${APP_ID}`, ['c']],
      ['?limit=2', ['a', 'b']],
    ];
    for (const [query, expected] of filters) expect(await names(query)).toEqual(expected);
  });

  test('goes on where the page before ended, whatever is gone meanwhile', async () => {
    const jobs = Array.from({ length: 7 }, (_, n) => recentJob({ mediaId: `m${n}` }));
    // Two died in the same millisecond.
    for (const job of jobs) await bury(job, job === jobs[3] ? { diedAt: iso(died) } : {});
    const first = await list('?limit=3');
    expect(first.items.map(({ mediaId }) => mediaId)).toEqual(['m0', 'm1', 'm2']);
    await deadLetters.index.remove(`${APP_ID}-m2`);
    const second = await list(`?limit=3&cursor=${first.next}`);
    expect(second.items.map(({ mediaId }) => mediaId)).toEqual(['m3', 'm4', 'm5']);
    const third = await list(`?limit=3&cursor=${second.next}`);
    expect(third).toEqual({ items: [expect.objectContaining({ mediaId: 'm6' })] });
  });

  test.each([
    'limit=0',
    'limit=1001',
    'limit=x',
    'limit=1&limit=2',
    'errcode=1.5',
    'reason=because',
    'reason=weixin-busy',
    'app=wx1',
    'since=yesterday',
    'until=2026-01-01',
    'cursor=x',
    'cursor=WyJ4IiwieSJd',
    'reasn=media-expired',
  ])('%s is refused', async (query) => {
    expect(await problemIn(await ingest.ask(`/v1/dead-letters?${query}`))).toMatchObject({ status: 400 });
  });
});

describe('one dead letter', () => {
  test('is told whole, also when it is no longer open, and each variant for itself', async () => {
    const job = recentJob();
    const buried = await bury(job);
    const path = `/v1/dead-letters/${APP_ID}/${job.mediaId}`;
    expect(await (await ingest.ask(path)).json()).toEqual({ items: [{ key: deadLetterKey(job), ...buried }] });
    await bury({ ...job, variant: 'hd-voice' });
    expect(await (await ingest.ask(path)).json()).toMatchObject({ items: [{}, {}] });
    await answer('/v1/dead-letters/discard', { all: true });
    expect(await (await ingest.ask(`${path}.hd-voice`)).json()).toMatchObject({ items: [{ status: 'discarded' }] });
  });

  test('that was no MediaJob goes by what the list calls it', async () => {
    const key = 'dead-letters/app=unknown/dt=2026-06-15/invalid-x.json';
    const buried: DeadLetter = { ...(await bury(recentJob())), appId: 'unknown', mediaId: 'x y', job: 7 };
    await deadLetters.bury(invalidJobId('x y'), key, buried, never);
    expect(await (await ingest.ask('/v1/dead-letters/unknown/x%20y')).json()).toMatchObject({
      items: [{ key, job: 7 }],
    });
  });

  test('that there is not is a 404', async () => {
    expect(await problemIn(await ingest.ask(`/v1/dead-letters/${APP_ID}/x`))).toMatchObject({ status: 404 });
    expect(await problemIn(await ingest.ask('/v1/dead-letters/wx1/x'))).toMatchObject({ status: 400 });
  });
});

describe.each([
  { path: '/v1/dead-letters/replay', outcome: 'replayed' },
  { path: '/v1/dead-letters/discard', outcome: 'discarded' },
])('$path', ({ path, outcome }) => {
  const dry = outcome === 'replayed' ? 'would-replay' : 'would-discard';

  test.each([{}, { limit: 5 }, { dryRun: true }, { all: false }])('of everything must be meant: %j', async (body) => {
    const job = recentJob();
    await bury(job);
    const problem = await problemIn(await ingest.post(path, body));
    expect(problem).toMatchObject({ status: 400, detail: expect.stringContaining('"all"') });
    expect(await names()).toEqual([job.mediaId]);
  });

  test('on trial tells each, and changes nothing', async () => {
    const jobs = [recentJob(), recentJob({ variant: 'hd-voice' })];
    for (const job of jobs) await bury(job);
    expect(await answer(path, { all: true, dryRun: true })).toEqual({
      dryRun: true,
      matched: 2,
      [outcome]: 2,
      skipped: {},
      failed: 0,
      more: false,
      items: [
        { appId: APP_ID, mediaId: jobs[0]?.mediaId, outcome: dry },
        { appId: APP_ID, mediaId: jobs[1]?.mediaId, variant: 'hd-voice', outcome: dry },
      ],
    });
    expect(await names()).toHaveLength(2);
    for (const job of jobs) expect([await isQueued(job), (await letterOf(job))?.status]).toEqual([false, 'open']);
  });

  test('concerns what the filter matches, up to the limit, and tells of more', async () => {
    const jobs = Array.from({ length: 3 }, () => recentJob());
    for (const job of jobs) await bury(job);
    const other = recentJob({ appId: OTHER_APP_ID });
    await bury(other);
    const first = await answer(path, { app: APP_ID, limit: 2 });
    expect(first).toMatchObject({ matched: 2, [outcome]: 2, more: true });
    expect(first['items']).toEqual(jobs.slice(0, 2).map(({ appId, mediaId }) => ({ appId, mediaId, outcome })));
    expect(await answer(path, { app: APP_ID, limit: 2 })).toMatchObject({ matched: 1, [outcome]: 1, more: false });
    expect(await names()).toEqual([other.mediaId]);
  });

  test('notes who and why', async () => {
    const [one, two] = [recentJob(), recentJob()];
    await bury(one);
    await answer(path, { all: true, by: 'Li Lei', note: 'the list was corrected' });
    await bury(two);
    await answer(path, { all: true });
    const record = (letter: DeadLetter | undefined): object | undefined =>
      outcome === 'replayed' ? letter?.replays[0] : letter?.discarded;
    expect(record(await letterOf(one))).toMatchObject({ by: 'Li Lei', reason: 'the list was corrected' });
    expect(record(await letterOf(two))).toMatchObject({ by: 'api', reason: '' });
  });

  test.each([
    { app: 'wx1' },
    { app: APP_ID, limit: 0 },
    { app: APP_ID, limit: 1_001 },
    { app: APP_ID, errcode: '40007' },
    { app: APP_ID, dryrun: true },
    { app: APP_ID, by: '' },
    { all: 'yes' },
    [],
    null,
  ])('%j is refused', async (body) => {
    expect(await problemIn(await ingest.post(path, body))).toMatchObject({ status: 400, mistakes: expect.any(Array) });
  });

  test('leaves alone what somebody else decides on just now', async () => {
    const [job, other] = [recentJob(), recentJob()];
    for (const one of [job, other]) await bury(one);
    const lease = corner.keys.replay(mediaJobId(job));
    await corner.redis.set(lease, 'somebody');
    expect(await answer(path, { all: true })).toMatchObject({
      [outcome]: 1,
      skipped: { 'under-way': 1 },
      items: [{ mediaId: job.mediaId, outcome: 'skipped', why: 'under-way' }, { outcome }],
    });
    expect([await isQueued(job), (await letterOf(job))?.status, await names()]).toEqual([false, 'open', [job.mediaId]]);
    await corner.redis.del(lease);
    expect(await answer(path, { all: true })).toMatchObject({ [outcome]: 1, skipped: {} });
  });

  test('leaves a line in the log of who did it, to which, and what came of it', async () => {
    const job = recentJob();
    await bury(job);
    await answer(path, { app: APP_ID, since: '2026-01-01T00:00:00Z', limit: 7, by: 'Li Lei' });
    const [line = ''] = ingest.log().match(/.*"dead letters .*/g) ?? [];
    expect(JSON.parse(line)).toMatchObject({
      by: 'Li Lei',
      filter: { appId: APP_ID, since: Date.UTC(2026, 0, 1) },
      all: false,
      limit: 7,
      matched: 1,
      [outcome]: 1,
    });
  });

  test.each(['__proto__', 'constructor'])('a body with %s is refused', async (name) => {
    const job = recentJob();
    await bury(job);
    const body = `{"${name}":{"all":true,"prototype":{"all":true}}}`;
    expect(await problemIn(await ingest.post(path, body))).toMatchObject({ status: 400, mistakes: expect.any(Array) });
    expect(await names()).toEqual([job.mediaId]);
  });

  test('counts those that fail, and tells why', async () => {
    const job = recentJob();
    await bury(job);
    await using own = await openIngest({ ...environment(), ARCHIVE_BUCKET: 'no-such-bucket' });
    await own.ready();
    const response = await own.post(path, { all: true });
    expect(await response.json()).toMatchObject({
      failed: 1,
      [outcome]: 0,
      items: [{ outcome: 'failed', failure: {} }],
    });
    expect(await names()).toEqual([job.mediaId]);
  });

  test('without a bucket says so', async () => {
    await bury(recentJob());
    await using own = await openIngest({ ...environment(), ARCHIVE_BUCKET: '' });
    await own.ready();
    for (const response of [await own.post(path, { all: true }), await own.ask(`/v1/dead-letters/${APP_ID}/x`)]) {
      expect(await problemIn(response)).toMatchObject({
        status: 501,
        detail: expect.stringContaining('ARCHIVE_BUCKET'),
      });
    }
    expect(await (await own.ask('/v1/dead-letters')).json()).toMatchObject({ items: [{}] });
  });
});

test('of a replay and two discards at once, each letter goes to one', async () => {
  const jobs = Array.from({ length: 20 }, () => recentJob());
  for (const job of jobs) await bury(job);
  const answers = await Promise.all(
    ['replay', 'discard', 'discard'].map((what) => answer(`/v1/dead-letters/${what}`, { all: true })),
  );
  const claims = (answers as { items: { mediaId: string; outcome: string }[] }[])
    .flatMap(({ items }) => items)
    .filter((item) => item.outcome !== 'skipped')
    .map((item) => `${item.mediaId} ${item.outcome}`);
  const made = await Promise.all(jobs.map(async (job) => `${job.mediaId} ${(await letterOf(job))?.status}`));
  expect(claims.toSorted()).toEqual(made.toSorted());
  for (const job of jobs) expect(await isQueued(job)).toBe((await letterOf(job))?.status === 'replayed');
  expect(await names()).toEqual([]);
});

describe('/v1/dead-letters/replay', () => {
  test('puts media back to work, and skips with their why those it can not', async () => {
    const [job, expired, broken] = [recentJob(), testJob({ receivedAt: iso(Date.now() - 4 * DAY) }), recentJob()];
    for (const one of [job, expired]) await bury(one);
    await bury(broken, { job: { v: 99 } });
    expect(await answer('/v1/dead-letters/replay', { all: true })).toMatchObject({
      matched: 3,
      replayed: 1,
      skipped: { expired: 1, 'not-a-job': 1 },
      items: [
        { mediaId: job.mediaId, outcome: 'replayed' },
        { mediaId: expired.mediaId, outcome: 'skipped', why: 'expired' },
        { mediaId: broken.mediaId, outcome: 'skipped', why: 'not-a-job' },
      ],
    });
    expect([await isQueued(job), await isQueued(expired)]).toEqual([true, false]);
    const wanted = await answer('/v1/dead-letters/replay', { all: true, includeExpired: true, rate: 100 });
    expect(wanted).toMatchObject({ replayed: 1, skipped: { 'not-a-job': 1 } });
    expect(await isQueued(expired)).toBe(true);
  });

  test.each([
    [{ rate: 1 }, 400],
    [{ rate: 1, limit: 61 }, 400],
    [{ rate: 0, limit: 1 }, 400],
    [{ rate: -1, limit: 1 }, 400],
    [{ rate: 1, limit: 60 }, 200],
    [{ rate: 17 }, 200],
  ])('%j takes longer than a request may, or not', async (body, status) => {
    const response = await ingest.post('/v1/dead-letters/replay', { all: true, ...body });
    expect(response.status).toBe(status);
    await response.arrayBuffer();
  });

  test.each(['the caller goes away', 'the process stops'])('stops between two letters when %s', async (how) => {
    for (let n = 0; n < 20; n += 1) await bury(recentJob());
    const gone = new AbortController();
    const asked = ingest.post('/v1/dead-letters/replay', { all: true, rate: 0.5, limit: 20 }, { signal: gone.signal });
    asked.catch(() => undefined);
    await eventually(async () => ((await deadLetters.index.count()) < 20 ? true : undefined));
    if (how === 'the caller goes away') {
      gone.abort();
      await expect(asked).rejects.toThrow();
      const [, replayed] = await eventually(
        () => /"replayed":(\d+),.*"dead letters replayed"/.exec(ingest.log()) ?? undefined,
      );
      expect(await deadLetters.index.count()).toBe(20 - Number(replayed));
    } else {
      const stopped = ingest.stop();
      const told = (await (await asked).json()) as { more: boolean; replayed: number };
      expect(told).toMatchObject({ matched: 20, more: true });
      expect(await deadLetters.index.count()).toBe(20 - told.replayed);
      await stopped;
    }
    // At its rate all of them would take forty seconds.
    expect(await deadLetters.index.count()).toBeGreaterThan(0);
  });
});
