import { afterEach, beforeEach, expect, test } from 'vitest';
import { HAND_IN_TIMEOUT_MS } from '../../src/ingest/way-in.ts';
import { mediaJobId } from '../../src/media/media-job.ts';
import { laneOf } from '../../src/queue/lane.ts';
import { openLanes } from '../../src/queue/open-lanes.ts';
import { closeRedis, connectRedis } from '../../src/redis/connect.ts';
import { Secret } from '../../src/secret.ts';
import { MINUTE, SECOND } from '../../src/time.ts';
import { eventually } from '../support/eventually.ts';
import { openIngest, problemIn, type TestIngest } from '../support/ingest.ts';
import { APP_ID, testJob } from '../support/jobs.ts';
import { type OwnRedis, openOwnRedis } from '../support/own-redis.ts';

const PREFIX = '{weixin-media}';

let own: OwnRedis;
let ingest: TestIngest;

beforeEach(async () => {
  own = await openOwnRedis();
  ingest = await openIngest({ REDIS_URL: own.url });
});

afterEach(async () => {
  await ingest.stop();
  await own[Symbol.asyncDispose]();
});

async function inRedis<T>(look: (redis: ReturnType<typeof connectRedis>) => Promise<T>): Promise<T> {
  const config = { url: new Secret(own.url), prefix: PREFIX, sentinelMaster: '' };
  const redis = connectRedis(config, 'patient', 'test', () => undefined);
  try {
    return await look(redis);
  } finally {
    await closeRedis(redis);
  }
}

async function expectUnavailable(response: Response): Promise<void> {
  expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0);
  expect(await problemIn(response)).toMatchObject({ status: 503 });
}

/** Hands media in until they are taken; then they are in the queue, each once. */
async function expectTakenLater(...jobs: ReturnType<typeof testJob>[]): Promise<void> {
  await ingest.ready();
  const answer = await eventually(async () => {
    const response = await ingest.post('/v1/media', { items: jobs });
    const body = (await response.json()) as { accepted: number; duplicates: number };
    return response.status === 202 ? body : undefined;
  });
  expect(answer.accepted + answer.duplicates).toBe(jobs.length);
  await inRedis(async (redis) => {
    const lanes = openLanes(redis, PREFIX, { lockMs: MINUTE, rescueEveryMs: MINUTE });
    for (const job of jobs) expect(await lanes.lane(laneOf(APP_ID)).peek(mediaJobId(job))).toBeDefined();
    expect(await lanes.lane(laneOf(APP_ID)).counts()).toMatchObject({ waiting: jobs.length });
    await lanes.close();
  });
}

test('who hands media in is told within two seconds', () => {
  expect(HAND_IN_TIMEOUT_MS).toBeLessThan(2 * SECOND);
});

test('while Redis is away, it lives, is unready, and answers 503 to all; once Redis is there, it works', async () => {
  await own.stop();
  await using late = await openIngest({ REDIS_URL: own.url });
  const job = testJob();
  for (const each of [ingest, late]) {
    expect((await each.ask('/healthz')).status).toBe(200);
    await eventually(async () => ((await each.ask('/readyz')).status === 503 ? true : undefined));
    await expectUnavailable(await each.ask('/readyz'));
    await expectUnavailable(await each.post('/v1/media', job));
    await expectUnavailable(await each.ask(`/v1/media/${APP_ID}/x`));
    await expectUnavailable(await each.ask('/v1/dead-letters'));
    expect(await (await each.ask('/metrics')).text()).toContain('weixin_media_redis_up 0');
    // What can't be right is not taken for an outage.
    expect(await problemIn(await each.post('/v1/media', '{'))).toMatchObject({ status: 400 });
  }
  await own.start();
  await expectTakenLater(job);
  await late.ready();
  expect(await (await late.post('/v1/media', job)).json()).toEqual({ accepted: 0, duplicates: 1, rejected: [] });
});

test('while Redis is frozen, it answers 503, and takes the same media once Redis goes on', async () => {
  await ingest.ready();
  own.freeze();
  const jobs = Array.from({ length: 20 }, () => testJob());
  const answers = await Promise.all(jobs.map((job) => ingest.post('/v1/media', job)));
  for (const answer of answers) await expectUnavailable(answer);
  // Later it does not even try.
  await eventually(async () => ((await ingest.ask('/readyz')).status === 503 ? true : undefined));
  await expectUnavailable(await ingest.post('/v1/media', jobs[0]));
  own.thaw();
  await expectTakenLater(...jobs);
});

test('while Redis is full, it answers 503, and takes the same media once there is room', async () => {
  await ingest.ready();
  await inRedis((redis) => redis.config('SET', 'maxmemory', '1'));
  const job = testJob();
  await expectUnavailable(await ingest.post('/v1/media', job));
  expect(ingest.log()).toMatch(/"msg":"Redis did not take what was handed in"/);
  await inRedis((redis) => redis.config('SET', 'maxmemory', '0'));
  await expectTakenLater(job);
});

/** The lines that warn, or worse, of requests; not those of the connection itself. */
function warnings(): { readonly level: number; readonly msg: string; readonly [fact: string]: unknown }[] {
  const lines = ingest.log().trimEnd().split('\n');
  return lines
    .map((line) => JSON.parse(line))
    .filter(({ level, msg }) => level >= 40 && !/^Redis connection/.test(msg));
}

test('an outage is a line or two for each route, however many ask, and none with a stack', async () => {
  await ingest.ready();
  await own.stop();
  const asked = Array.from({ length: 10 }, (_, n) => [
    ingest.post('/v1/media', testJob()),
    ingest.ask('/v1/dead-letters'),
    ingest.ask(`/v1/media/${APP_ID}/${n}`),
  ]);
  for (const response of await Promise.all(asked.flat())) await expectUnavailable(response);
  // The line of a request is written once its answer has been sent.
  await eventually(() => (warnings().filter(({ msg }) => msg === 'request').length >= 3 ? true : undefined));
  expect(warnings().map(({ msg, route }) => `${msg} ${route ?? ''}`.trim())).toEqual(
    expect.arrayContaining([
      'Redis did not take what was handed in',
      'a request could not be answered /v1/dead-letters',
    ]),
  );
  const told = warnings().map(({ msg, route, status }) => `${msg} ${route} ${status}`);
  expect(told.toSorted()).toEqual([...new Set(told)].toSorted());
  expect(JSON.stringify(warnings())).not.toMatch(/"stack"/);
});

test('an outage names no media, no token and no password in the log', async () => {
  await ingest.ready();
  await own.lock('a-password-that-must-not-leak');
  const job = testJob();
  await own.stop();
  await expectUnavailable(await ingest.post('/v1/media', job));
  expect(ingest.log()).not.toMatch(/a-password|a-token/);
  expect(ingest.log()).not.toContain(job.mediaId);
});
