import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { startRedisServer } from '../../src/demo/redis-server.ts';
import { type Lane, type Lanes, LockLostError, laneOf, type TakenJob } from '../../src/queue/lane.ts';
import { createLockKeeper, type LockKeeper } from '../../src/queue/lock-keeper.ts';
import { openLanes } from '../../src/queue/open-lanes.ts';
import { closeRedis, connectRedis, type RedisClient } from '../../src/redis/connect.ts';
import { Secret } from '../../src/secret.ts';
import { eventually } from '../support/eventually.ts';
import { APP_ID, OTHER_APP_ID } from '../support/jobs.ts';
import { redisExecutable, takeOne } from '../support/queue.ts';

/** For locks that are to be kept: a machine that is held up for seconds must not lose one. */
const LONG_MS = 6_000;
/** For locks that are to be lost anyway. */
const SHORT_MS = 800;

interface KeptJob {
  readonly job: TakenJob;
  /** The reasons with which it was aborted. */
  readonly aborts: readonly Error[];
  readonly lockKey: string;
}

interface Bench extends AsyncDisposable {
  readonly redis: RedisClient;
  readonly lanes: Lanes;
  readonly lane: Lane;
  readonly keeper: LockKeeper;
  readonly errors: readonly unknown[];
  /** Sends a signal to the redis-server. */
  signal(name: NodeJS.Signals): void;
  /** Takes a job and has its lock kept. */
  keepOne(from?: Lane): Promise<KeptJob>;
  /** Waits until the lock has been renewed so many times. */
  renewed(kept: KeptJob, times: number): Promise<void>;
}

async function openBench(lockMs: number): Promise<Bench> {
  await using parts = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'weixin-media-locks-'));
  parts.defer(() => rm(directory, { recursive: true, force: true }));
  const server = parts.use(await startRedisServer(redisExecutable(), { directory, appendOnly: false }));
  // It may have been frozen.
  parts.defer(() => void server.process.kill('SIGCONT'));
  const config = { url: new Secret(server.url), prefix: '{locks}', sentinelMaster: '' };
  const redis = connectRedis(config, 'patient', 'test', () => undefined);
  parts.defer(() => closeRedis(redis));
  const lanes = openLanes(redis, config.prefix, { lockMs, rescueEveryMs: lockMs });
  const lane = lanes.lane(laneOf(APP_ID));
  const errors: unknown[] = [];
  const keeper = createLockKeeper(lockMs, (error) => errors.push(error));
  parts.defer(() => keeper.stop());
  const moved = parts.move();
  return {
    redis,
    lanes,
    lane,
    keeper,
    errors,
    signal: (name) => void server.process.kill(name),
    keepOne: async (from = lane) => {
      const id = `a-${crypto.randomUUID()}`;
      await from.add([{ id, data: {}, priority: 1 }]);
      const takenAt = performance.now();
      const job = await takeOne(from);
      const aborts: Error[] = [];
      keeper.keep(from, job, takenAt, (reason) => aborts.push(reason));
      return { job, aborts, lockKey: `${from.keyOfJob(id)}:lock` };
    },
    renewed: async ({ lockKey }, times) => {
      for (let time = 0; time < times; time += 1) {
        let last = await redis.pttl(lockKey);
        await eventually(async () => {
          const before = last;
          last = await redis.pttl(lockKey);
          return last > before ? true : undefined;
        });
      }
    },
    [Symbol.asyncDispose]: () => moved.disposeAsync(),
  };
}

const LOST = [expect.any(LockLostError)];
const untilAborted = ({ aborts }: KeptJob): Promise<true> => eventually(() => (aborts.length > 0 ? true : undefined));

describe.concurrent('the lock of a job that runs', () => {
  test('is renewed for longer than it lasts, in every lane', async () => {
    await using bench = await openBench(LONG_MS);
    const { lanes, lane, keepOne, renewed } = bench;
    const other = lanes.lane(laneOf(OTHER_APP_ID));
    const [here, there] = [await keepOne(), await keepOne(other)];
    await Promise.all([renewed(here, 5), renewed(there, 5)]);
    expect([here.aborts, there.aborts]).toEqual([[], []]);
    await lane.complete(here.job);
    await other.complete(there.job);
  });

  test('that is gone aborts it, once, and no other', async () => {
    await using bench = await openBench(LONG_MS);
    const { redis, keepOne, renewed } = bench;
    const [lost, held] = [await keepOne(), await keepOne()];
    await redis.del(lost.lockKey);
    await untilAborted(lost);
    await renewed(held, 1);
    expect([lost.aborts, held.aborts]).toEqual([LOST, []]);
  });

  test('that another worker has got aborts it, and the other’s lock is left alone', async () => {
    await using bench = await openBench(LONG_MS);
    const { redis, keepOne } = bench;
    const lost = await keepOne();
    await redis.set(lost.lockKey, 'another token', 'PX', 10 * LONG_MS);
    await untilAborted(lost);
    expect(lost.aborts).toEqual(LOST);
    expect(await redis.get(lost.lockKey)).toBe('another token');
    expect(await redis.pttl(lost.lockKey)).toBeGreaterThan(LONG_MS);
  });

  test('is let go when the job has ended: nothing is renewed, nothing aborted', async () => {
    await using bench = await openBench(LONG_MS);
    const { redis, keeper, keepOne, renewed } = bench;
    const [ended, held] = [await keepOne(), await keepOne()];
    keeper.release(ended.job);
    await redis.del(ended.lockKey);
    await renewed(held, 1);
    expect(ended.aborts).toEqual([]);
    expect(await redis.exists(ended.lockKey)).toBe(0);
  });

  test('is kept when the job that had its token before is let go', async () => {
    await using bench = await openBench(LONG_MS);
    const { lane, keeper, keepOne, renewed } = bench;
    const before = await keepOne();
    await lane.add([{ id: 'next', data: {}, priority: 1 }]);
    const takenAt = performance.now();
    const { job } = await lane.completeAndTake(before.job);
    if (job === undefined) throw new Error('nothing was taken');
    expect(job.token).toBe(before.job.token);
    const aborts: Error[] = [];
    keeper.keep(lane, job, takenAt, (reason) => aborts.push(reason));
    keeper.release(before.job);
    await renewed({ job, aborts, lockKey: `${lane.keyOfJob(job.id)}:lock` }, 5);
    expect([before.aborts, aborts]).toEqual([[], []]);
  });

  test('is renewed although those of another lane cannot be, which is told', async () => {
    await using bench = await openBench(LONG_MS);
    const { redis, lanes, lane, errors, keepOne, renewed } = bench;
    const broken: Lane = {
      ...lanes.lane(laneOf(OTHER_APP_ID)),
      extendLocks: () => Promise.reject(new Error('WRONGTYPE')),
    };
    await keepOne(broken);
    const kept = await keepOne(lane);
    await renewed(kept, 3);
    expect(kept.aborts).toEqual([]);
    expect(errors.length).toBeGreaterThan(0);
    expect(await redis.exists(kept.lockKey)).toBe(1);
  });

  test('is renewed again after an error of Redis, which is told', async () => {
    await using bench = await openBench(LONG_MS);
    const { redis, errors, keepOne, renewed } = bench;
    const kept = await keepOne();
    await redis.config('SET', 'maxmemory', '1');
    await eventually(() => (errors.length > 0 ? true : undefined));
    await redis.config('SET', 'maxmemory', '0');
    await renewed(kept, 1);
    expect(kept.aborts).toEqual([]);
  });
});

describe.concurrent('a Redis that freezes', () => {
  test('for longer than a lock lasts aborts every job, and what they do later is refused', async () => {
    await using bench = await openBench(SHORT_MS);
    const { redis, lane, signal, keepOne } = bench;
    const kept = [await keepOne(), await keepOne()];
    signal('SIGSTOP');
    for (const job of kept) {
      await untilAborted(job);
      expect(job.aborts).toEqual(LOST);
    }
    signal('SIGCONT');
    for (const { lockKey } of kept) {
      await eventually(async () => ((await redis.exists(lockKey)) === 0 ? true : undefined));
    }
    for (const { job } of kept) await expect(lane.complete(job)).rejects.toThrow(LockLostError);
  });

  test('and comes back keeps the jobs that are taken after that', async () => {
    await using bench = await openBench(LONG_MS);
    const { signal, keepOne, renewed } = bench;
    const lost = await keepOne();
    signal('SIGSTOP');
    await untilAborted(lost);
    signal('SIGCONT');
    const held = await keepOne();
    await renewed(held, 2);
    expect([lost.aborts, held.aborts]).toEqual([LOST, []]);
  });
});

test('a Redis that is gone for good aborts every job', async () => {
  await using bench = await openBench(SHORT_MS);
  const lost = await bench.keepOne();
  bench.signal('SIGKILL');
  await untilAborted(lost);
  expect(lost.aborts).toEqual(LOST);
});

test('a process that was itself held up gives up what it could not renew', async () => {
  await using bench = await openBench(SHORT_MS);
  const { lane, keeper, keepOne } = bench;
  const { job } = await keepOne();
  const aborts: Error[] = [];
  keeper.keep(lane, job, performance.now() - SHORT_MS, (reason) => aborts.push(reason));
  await eventually(() => (aborts.length > 0 ? true : undefined));
  expect(aborts).toEqual(LOST);
});
