import { beforeEach, describe, expect, test } from 'vitest';
import { createMetrics, type MetricSources, type Metrics } from '../../src/operate/metrics.ts';
import type { Gate } from '../../src/queue/gates.ts';
import type { LaneStats } from '../../src/queue/queue-stats.ts';
import { DAY, HOUR, SECOND } from '../../src/time.ts';
import { testClock } from '../support/clock.ts';
import { APP_ID, OTHER_APP_ID, testJob } from '../support/jobs.ts';

const clock = testClock();
const job = testJob();
const object = { key: 'x', sizeBytes: 1_000, sha256: 'ab', contentType: 'image/jpeg', metadata: {}, created: true };

let lanes: LaneStats[];
let gates: Gate[];
let redisUp: boolean;
let read: () => Promise<void>;
let metrics: Metrics;

beforeEach(() => {
  lanes = [];
  gates = [];
  redisUp = true;
  read = async () => undefined;
  const sources: MetricSources = {
    inFlight: () => 3,
    budget: () => ({ usedBytes: 5, totalBytes: 10 }),
    redisUp: () => redisUp,
    queue: async () => {
      await read();
      return lanes;
    },
    gates: async () => gates,
    mediaTtlMs: 3 * DAY,
    now: clock.now,
  };
  metrics = createMetrics(sources);
});

/** The value of each sample, by name and labels. */
async function samples(): Promise<ReadonlyMap<string, number>> {
  const { body } = await metrics.render();
  const lines = body.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line) => {
      const space = line.lastIndexOf(' ');
      return [line.slice(0, space).replace('weixin_media_', ''), Number(line.slice(space + 1))];
    }),
  );
}

function laneOf(fields: Partial<LaneStats>): LaneStats {
  return { waiting: 0, delayed: 0, active: 0, failed: 0, appId: APP_ID, ...fields };
}

test('what became of media is counted by outcome, failure and reason', async () => {
  metrics.observeJob({ type: 'archived', job, object, durationMs: 200, attempt: 1, marginMs: 1 });
  metrics.observeJob({ type: 'archived', job, object, durationMs: 700, attempt: 1, marginMs: 1 });
  metrics.observeJob({ type: 'retry', job, failure: { code: 'weixin-busy' }, durationMs: 1, attempt: 1, at: 0 });
  metrics.observeJob({ type: 'wait', job, failure: { code: 'quota-exhausted' }, durationMs: 1, attempt: 1 });
  const { appId, mediaId } = job;
  const failure = { code: 'invalid-media-id' } as const;
  metrics.observeJob({ type: 'dead', appId, mediaId, reason: 'media-expired', failure, durationMs: 300, attempt: 1 });
  metrics.observeJob({
    type: 'dead',
    appId,
    mediaId,
    reason: 'job-invalid',
    failure: { code: 'job-invalid' },
    attempt: 0,
  });
  metrics.observeJob({ type: 'duplicate', jobId: 'x' });
  metrics.observeToken({ appId, kind: 'stable_token', forced: false, result: 'issued' });

  const found = await samples();
  expect(found.get('archived_total')).toBe(2);
  expect(found.get('bytes_total')).toBe(2_000);
  expect(found.get('failed_total{failure="weixin-busy"}')).toBe(1);
  expect(found.get('failed_total{failure="quota-exhausted"}')).toBe(1);
  expect(found.get('failed_total{failure="invalid-media-id"}')).toBe(1);
  expect(found.get('dead_total{reason="media-expired"}')).toBe(1);
  expect(found.get('attempt_seconds_bucket{le="0.25",outcome="archived"}')).toBe(1);
  expect(found.get('attempt_seconds_count{outcome="archived"}')).toBe(2);
  expect(found.get('attempt_seconds_sum{outcome="dead"}')).toBe(0.3);
  expect(found.get('attempt_seconds_count{outcome="dead"}')).toBe(1);
  expect(found.get('token_refresh_total{kind="stable_token",result="issued"}')).toBe(1);
});

test('what waits is summed over the lanes, with the nearest deadline and the oldest media of all', async () => {
  lanes = [
    laneOf({ waiting: 2, delayed: 3, nearestDeadline: clock.now() + 2 * DAY }),
    laneOf({ waiting: 5, active: 1, failed: 1, appId: OTHER_APP_ID, nearestDeadline: clock.now() + HOUR }),
  ];
  const found = await samples();
  const depths = ['waiting', 'delayed', 'active', 'failed'].map((state) => found.get(`queue_depth{state="${state}"}`));
  expect(depths).toEqual([7, 3, 1, 1]);
  expect(found.get('nearest_deadline_seconds')).toBe(HOUR / SECOND);
  expect(found.get('oldest_seconds')).toBe((3 * DAY - HOUR) / SECOND);
  expect([found.get('in_flight'), found.get('memory_budget_used_bytes'), found.get('memory_budget_bytes')]).toEqual([
    3, 5, 10,
  ]);
});

test('a deadline that has passed is negative, and none is told when nothing waits', async () => {
  lanes = [laneOf({ waiting: 1, nearestDeadline: clock.now() - HOUR })];
  expect((await samples()).get('nearest_deadline_seconds')).toBe(-HOUR / SECOND);
  lanes = [laneOf({})];
  const found = await samples();
  expect(found.has('nearest_deadline_seconds')).toBe(false);
  expect(found.get('oldest_seconds')).toBe(0);
});

test('a gate is there while it is closed', async () => {
  gates = [{ appId: APP_ID, reason: 'ip-not-allowed', closedAt: 0, probeAt: 0 }];
  expect((await samples()).get(`gate_closed{app="${APP_ID}",reason="ip-not-allowed"}`)).toBe(1);
  gates = [];
  expect([...(await samples()).keys()].filter((name) => name.startsWith('gate_closed'))).toEqual([]);
});

describe('while the queue can not be read', () => {
  const OF_THE_QUEUE = /^(queue_depth|oldest_seconds|nearest_deadline_seconds|gate_closed)/;

  async function expectLocalOnly(up: number): Promise<void> {
    const found = await samples();
    expect([found.get('redis_up'), found.get('in_flight'), found.get('archived_total')]).toEqual([up, 3, 1]);
    expect([...found.keys()].filter((name) => OF_THE_QUEUE.test(name))).toEqual([]);
  }

  beforeEach(async () => {
    metrics.observeJob({ type: 'archived', job, object, durationMs: 200, attempt: 1, marginMs: 1 });
    lanes = [laneOf({ waiting: 2, nearestDeadline: clock.now() + HOUR })];
    gates = [{ appId: APP_ID, reason: 'ip-not-allowed', closedAt: 0, probeAt: 0 }];
  });

  test('since Redis is away, the numbers of this worker are told, and those of the queue left out', async () => {
    expect((await samples()).get('redis_up')).toBe(1);
    redisUp = false;
    read = () => Promise.reject(new Error('must not be asked'));
    await expectLocalOnly(0);
    redisUp = true;
    read = async () => undefined;
    expect((await samples()).get('queue_depth{state="waiting"}')).toBe(2);
  });

  test('since Redis refuses, or takes long, the last numbers stand for two minutes', async () => {
    await samples();
    lanes = [];
    for (const trouble of [() => Promise.reject(new Error('NOPERM')), () => Promise.withResolvers<never>().promise]) {
      read = trouble;
      clock.advance(59 * SECOND);
      const found = await samples();
      expect(found.get('queue_depth{state="waiting"}')).toBe(2);
      expect(found.get(`gate_closed{app="${APP_ID}",reason="ip-not-allowed"}`)).toBe(1);
    }
    clock.advance(2 * SECOND);
    await expectLocalOnly(1);
  });

  test('at the first scrape, nothing is made up', async () => {
    read = () => Promise.reject(new Error('NOPERM'));
    await expectLocalOnly(1);
  });
});

test('no label holds a media_id, an openId or anything else without bound', async () => {
  metrics.observeJob({
    type: 'retry',
    job,
    failure: { code: 'weixin-busy', detail: job.mediaId },
    durationMs: 1,
    attempt: 1,
    at: 0,
  });
  const { body, contentType } = await metrics.render();
  expect(body).not.toContain(job.mediaId);
  expect(contentType).toMatch(/^text\/plain/);
});
