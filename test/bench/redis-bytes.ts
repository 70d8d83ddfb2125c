/**
 * Measures what one media costs in Redis: while it waits, after it is archived, and when three days of tries have failed;
 * beside it, what a retained BullMQ job would cost. Prints one JSON object.
 *
 *   npm run bench:redis -- [--media N]
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Queue } from 'bullmq';
import { type AttemptRecord, attemptRecord } from '../../src/archive/attempt-record.ts';
import { provideRedisServer, startRedisServer } from '../../src/demo/redis-server.ts';
import { newMediaId } from '../../src/demo/weixin/weixin-simulator.ts';
import { failure } from '../../src/failure.ts';
import { mediaJobId } from '../../src/media/media-job.ts';
import { positiveWholeNumber } from '../../src/operate/option-parsers.ts';
import { createArchivedMarkers } from '../../src/queue/archived-marker.ts';
import { createDoor } from '../../src/queue/door.ts';
import { laneOf } from '../../src/queue/lane.ts';
import { openLanes } from '../../src/queue/open-lanes.ts';
import { lastTryLead, nextTryAt } from '../../src/queue/retry-schedule.ts';
import { storedJobData } from '../../src/queue/stored-job.ts';
import { closeRedis, connectRedis, type RedisClient } from '../../src/redis/connect.ts';
import { redisKeys } from '../../src/redis/keys.ts';
import { Secret } from '../../src/secret.ts';
import { HOUR, iso, MINUTE } from '../../src/time.ts';
import { testJob } from '../support/jobs.ts';
import { benchOptions } from './bench-options.ts';
import { usedMemory } from './used-memory.ts';

const { read } = benchOptions('bench:redis', { media: { type: 'string', default: '20000' } });
const COUNT = read('media', positiveWholeNumber);
const PREFIX = '{weixin-media}';

const directory = await mkdtemp(join(tmpdir(), 'weixin-media-bench-'));
const server = await startRedisServer(await provideRedisServer(console.error), { directory, appendOnly: false });
const redis = connectRedis(
  { url: new Secret(server.url), prefix: PREFIX, sentinelMaster: '' },
  'patient',
  'bench',
  console.error,
);
try {
  const keys = redisKeys(PREFIX);
  const now = Date.now;
  const lanes = openLanes(redis, PREFIX, { lockMs: MINUTE, rescueEveryMs: MINUTE });
  const door = createDoor({ redis, keys, lanes, mediaTtlMs: 72 * HOUR, openId: { type: 'none' }, now });
  const jobs = Array.from({ length: COUNT }, () =>
    testJob({ mediaId: newMediaId(), receivedAt: iso(now()), source: { messageId: '6089239057186927631' } }),
  );

  const waiting = await bytesEach(redis, () => door.admit(jobs).then(() => undefined));
  await redis.flushall();

  const markers = createArchivedMarkers(redis, keys, now);
  const archived = await bytesEach(redis, async () => {
    for (let start = 0; start < COUNT; start += 1_000) {
      const marks = jobs.slice(start, start + 1_000).map((job) => {
        const key = `media/app=${job.appId}/kind=image/dt=2026-06-15/${job.mediaId}.jpg`;
        return markers.mark(mediaJobId(job), { key }, now() + 72 * HOUR);
      });
      await Promise.all(marks);
    }
  });
  await redis.flushall();

  const failed = await bytesEach(redis, async () => {
    await door.admit(jobs);
    for (const job of jobs) {
      const id = mediaJobId(job);
      const data = JSON.stringify(storedJobData({ job, ledger: { attempts: triesOfThreeDays() } }));
      await redis.hset(lanes.lane(laneOf(job.appId)).keyOfJob(id), 'data', data);
    }
  });
  await redis.flushall();

  const queue = new Queue('media', { connection: redis, prefix: PREFIX });
  const retained = await bytesEach(redis, async () => {
    await queue.addBulk(
      jobs.map((job) => ({ name: 'archive', data: job, opts: { jobId: mediaJobId(job), priority: 1 } })),
    );
  });
  await queue.close();
  await lanes.close();
  console.log(
    JSON.stringify({
      media: COUNT,
      bytesWaiting: waiting,
      bytesArchived: archived,
      bytesAfterThreeDays: failed,
      bytesRetainedJob: retained,
    }),
  );
} finally {
  await closeRedis(redis);
  await server.stop();
  await rm(directory, { recursive: true, force: true });
}

/** The attempts of an outage as long as the life of a media, by the schedule itself. */
function triesOfThreeDays(): AttemptRecord[] {
  const attempts: AttemptRecord[] = [];
  const deadline = 72 * HOUR;
  const leadMs = lastTryLead(deadline);
  for (let at: number | undefined = 0; at !== undefined; ) {
    attempts.push(attemptRecord(at, at + 5_000, failure('weixin-unreachable', { detail: 'ECONNREFUSED' })));
    at = nextTryAt({ now: at, deadline, failedAttempts: attempts.length, leadMs, random: Math.random });
  }
  return attempts;
}

/** What `fill` adds to the memory of Redis, for each media, in whole bytes. */
async function bytesEach(client: RedisClient, fill: () => Promise<void>): Promise<number> {
  const before = await usedMemory(client);
  await fill();
  return Math.round(((await usedMemory(client)) - before) / COUNT);
}
