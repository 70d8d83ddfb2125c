import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { ArchivedObject } from '../../src/archive/archive-media.ts';
import { startRedisServer } from '../../src/demo/redis-server.ts';
import { failure, type Result, succeed } from '../../src/failure.ts';
import { type MediaJob, mediaJobId } from '../../src/media/media-job.ts';
import { createDispatcher, type Dispatcher } from '../../src/queue/dispatcher.ts';
import { createFleet } from '../../src/queue/fleet.ts';
import { type Lane, type Lanes, laneOf } from '../../src/queue/lane.ts';
import { createLockKeeper } from '../../src/queue/lock-keeper.ts';
import { closeRedis, connectRedis, type RedisClient } from '../../src/redis/connect.ts';
import { redisKeys } from '../../src/redis/keys.ts';
import { Secret } from '../../src/secret.ts';
import { mediaKey } from '../../src/store/object-keys.ts';
import { HOUR, iso, MINUTE, SECOND } from '../../src/time.ts';
import { type TestClock, testClock } from '../support/clock.ts';
import { eventually } from '../support/eventually.ts';
import { APP_ID, OTHER_APP_ID, testJob } from '../support/jobs.ts';
import {
  type Attempt,
  LOCK_MS,
  openTestStore,
  redisExecutable,
  type TestStore,
  type TestWorker,
  takeOne,
  testWorker,
} from '../support/queue.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

/** A stop that hangs is told by the time limit of its test. */
const GRACE_MS = 60 * SECOND;

let bucket: TestStore;
let corner: TestRedis;
let clock: TestClock;
let parts: AsyncDisposableStack;

beforeAll(async () => {
  bucket = await openTestStore();
});

afterAll(() => bucket[Symbol.asyncDispose]());

beforeEach(async () => {
  parts = new AsyncDisposableStack();
  corner = parts.use(await openTestRedis());
  clock = testClock(Date.now());
});

afterEach(() => parts.disposeAsync());

/** A worker process in all but name: its own connections, lanes, gates and locks. */
interface Fleeter extends TestWorker {
  readonly dispatcher: Dispatcher;
  readonly running: Promise<void>;
  /** Turns of its loop so far. */
  turns(): number;
}

interface FleeterOptions {
  readonly concurrency?: number;
  readonly apps?: readonly string[];
  readonly in?: TestRedis;
  /** Stands between the dispatcher and its lanes. */
  readonly through?: (lane: Lane) => Lane;
  /** In place of a look into the lanes. */
  readonly glance?: Lanes['glance'];
}

function startWorker(
  attempt: Attempt,
  { concurrency = 4, apps = [APP_ID], in: where = corner, through = (lane) => lane, glance }: FleeterOptions = {},
): Fleeter {
  const redis = where.connect();
  const worker = testWorker({ corner: where, store: bucket.store, clock, attempt, redis });
  const locks = createLockKeeper(LOCK_MS, () => undefined);
  let turns = 0;
  const dispatcher = createDispatcher({
    redis,
    blocking: where.connect(),
    keys: where.keys,
    lanes: {
      ...worker.lanes,
      lane: (name) => through(worker.lanes.lane(name)),
      glance: glance ?? worker.lanes.glance,
    },
    gates: {
      ...worker.gates,
      refresh: () => {
        turns += 1;
        return worker.gates.refresh();
      },
    },
    fleet: createFleet(redis, where.keys, clock.now),
    locks,
    runJob: worker.runJob,
    apps: { has: (appId) => apps.includes(appId), list: () => apps, refresh: async () => undefined },
    concurrency,
    rescueEveryMs: LOCK_MS / 2,
    now: clock.now,
    elapsed: clock.now,
    observe: (event) => worker.events.push(event),
  });
  const running = dispatcher.run();
  parts.defer(async () => {
    await dispatcher.stop(0);
    locks.stop();
  });
  return { ...worker, dispatcher, running, turns: () => turns };
}

function archivedAs(job: MediaJob): Result<ArchivedObject> {
  const object = {
    key: mediaKey(job, 'jpg'),
    sizeBytes: 1,
    sha256: '',
    contentType: 'image/jpeg',
    metadata: {},
    created: true,
  };
  return succeed(object);
}

/** Attempts that go on until they are told to end, or are aborted. */
interface HeldAttempts {
  readonly attempt: Attempt;
  /** The media that run now, in the order they began. */
  readonly running: string[];
  /** All that have ever begun. */
  readonly begun: string[];
  end(mediaId: string, result?: Result<ArchivedObject>): void;
}

function heldAttempts(): HeldAttempts {
  const ends = new Map<string, (result?: Result<ArchivedObject>) => void>();
  const running: string[] = [];
  const begun: string[] = [];
  return {
    running,
    begun,
    end: (mediaId, result) => ends.get(mediaId)?.(result),
    attempt: async (job, signal) => {
      const { promise, resolve, reject } = Promise.withResolvers<Result<ArchivedObject> | undefined>();
      signal.addEventListener('abort', () => reject(signal.reason));
      if (signal.aborted) reject(signal.reason);
      ends.set(job.mediaId, resolve);
      running.push(job.mediaId);
      begun.push(job.mediaId);
      try {
        return (await promise) ?? archivedAs(job);
      } finally {
        running.splice(running.indexOf(job.mediaId), 1);
      }
    },
  };
}

const young = (fields: Partial<MediaJob> = {}): MediaJob => testJob({ receivedAt: iso(clock.now() - HOUR), ...fields });
const many = (count: number, fields: Partial<MediaJob> = {}): MediaJob[] =>
  Array.from({ length: count }, () => young(fields));
const until = (look: () => boolean | Promise<boolean>, timeoutMs?: number): Promise<true> =>
  eventually(async () => ((await look()) ? true : undefined), timeoutMs);

/** The time comes for everything that a worker does now and then, and it has done it. */
async function sweep(worker: Fleeter): Promise<void> {
  clock.advance(5 * SECOND);
  await until(() => worker.dispatcher.lastTurnAt === clock.now());
  const turn = worker.turns();
  await until(() => worker.turns() > turn);
}

describe('workers that share a queue', () => {
  test('run every job once, none of them twice at a time', async () => {
    const runs = new Map<string, number>();
    const atWork = new Set<string>();
    const twice: string[] = [];
    const both = Promise.withResolvers<void>();
    const attemptOf =
      (name: string): Attempt =>
      async (job) => {
        if (atWork.has(job.mediaId)) twice.push(job.mediaId);
        atWork.add(job.mediaId);
        runs.set(job.mediaId, (runs.get(job.mediaId) ?? 0) + 1);
        began.add(name);
        if (began.size === 2) both.resolve();
        await both.promise;
        await corner.redis.ping();
        atWork.delete(job.mediaId);
        return archivedAs(job);
      };
    const began = new Set<string>();
    const jobs = [...many(200), ...many(100, { appId: OTHER_APP_ID })];
    const apps = [APP_ID, OTHER_APP_ID];
    const workers = ['a', 'b'].map((name) => startWorker(attemptOf(name), { apps, concurrency: 8 }));
    await workers[0]?.door.admit(jobs);
    await until(async () => {
      const found = await workers[0]?.markers.find(jobs.map(mediaJobId));
      return found?.every((key) => key !== undefined) ?? false;
    });
    expect(twice).toEqual([]);
    expect(runs.size).toBe(300);
    expect([...runs.values()].every((count) => count === 1)).toBe(true);
  });

  test('take what one that died has left', async () => {
    const gone = testWorker({ corner, store: bucket.store, clock });
    const job = young();
    await gone.door.admit([job]);
    await takeOne(gone.lane);
    await corner.redis.del(`${gone.lane.keyOfJob(mediaJobId(job))}:lock`);
    const other = startWorker(async (taken) => archivedAs(taken));
    await until(async () => {
      await corner.redis.del(gone.lane.keyOfJob('stalled-check'));
      clock.advance(LOCK_MS);
      return (await other.markers.find([mediaJobId(job)]))[0] !== undefined;
    });
    expect(other.events.map(({ type }) => type)).toContain('rescued');
  });
});

describe('a worker', () => {
  test('runs as many jobs at once as it has slots, and no more', async () => {
    const held = heldAttempts();
    const worker = startWorker(held.attempt, { concurrency: 3 });
    const jobs = many(7);
    await worker.door.admit(jobs);
    await until(() => held.running.length === 3);
    await sweep(worker);
    expect([held.running.length, worker.dispatcher.inFlight]).toEqual([3, 3]);
    expect(await worker.lane.counts()).toMatchObject({ waiting: 4, active: 3 });
    for (let ended = 1; ended <= 7; ended += 1) {
      held.end(held.running[0] ?? '');
      await until(() => held.begun.length === Math.min(7, 3 + ended));
      expect(held.running.length).toBeLessThanOrEqual(3);
    }
    await until(() => worker.dispatcher.inFlight === 0);
  });

  test('that has nothing to do takes a job when one comes, and one that is due when its time comes', async () => {
    const held = heldAttempts();
    const worker = startWorker(held.attempt);
    await until(() => worker.turns() > 1);
    const [first, second] = [young(), young()];
    await worker.door.admit([first]);
    await until(() => held.running.includes(first.mediaId));
    held.end(first.mediaId, { ok: false, failure: failure('weixin-busy') });
    await until(async () => (await worker.lane.counts()).delayed === 1);
    await worker.door.admit([second]);
    await until(() => held.running.includes(second.mediaId));
    expect(held.begun).toHaveLength(2);
    clock.advance(MINUTE);
    await until(() => held.begun.length === 3);
    expect(held.begun.at(-1)).toBe(first.mediaId);
  });

  test('gives the next slot to the app that has none, however much waits in another', async () => {
    const held = heldAttempts();
    const worker = startWorker(held.attempt, { concurrency: 2, apps: [APP_ID, OTHER_APP_ID] });
    await worker.door.admit(many(50));
    await until(() => held.running.length === 2);
    const other = young({ appId: OTHER_APP_ID });
    await worker.door.admit([other]);
    await sweep(worker);
    held.end(held.running[0] ?? '');
    await until(() => held.begun.length === 3);
    expect(held.begun.at(-1)).toBe(other.mediaId);
  });

  test('that is never idle sees within a second what has come to a lane that was empty', async () => {
    const held = heldAttempts();
    const worker = startWorker(held.attempt, { concurrency: 2, apps: [APP_ID, OTHER_APP_ID] });
    await worker.door.admit(many(50));
    await until(() => held.running.length === 2);
    const other = young({ appId: OTHER_APP_ID });
    await worker.door.admit([other]);
    clock.advance(SECOND);
    held.end(held.running[0] ?? '');
    await until(() => held.begun.length === 3);
    expect(held.begun.at(-1)).toBe(other.mediaId);
  });

  test('looks into empty lanes without taking from them', async () => {
    const takes: string[] = [];
    const through = (lane: Lane): Lane => ({
      ...lane,
      take: (token) => {
        takes.push(lane.name);
        return lane.take(token);
      },
    });
    const worker = startWorker(heldAttempts().attempt, { apps: [APP_ID, OTHER_APP_ID], through });
    await until(() => worker.turns() > 1);
    await sweep(worker);
    await sweep(worker);
    expect(takes).toEqual([]);
  });

  test('finds a job whose marker has been lost with another worker', async () => {
    const held = heldAttempts();
    const before = testWorker({ corner, store: bucket.store, clock });
    const job = young();
    await before.door.admit([job]);
    await corner.redis.del(before.lane.markerKey);
    startWorker(held.attempt);
    await until(() => held.begun.length === 1);
    expect(held.begun).toEqual([job.mediaId]);
  });

  test('takes what is nearest to its deadline first', async () => {
    const held = heldAttempts();
    const jobs = [1, 30, 60, 20].map((ageHours) => young({ receivedAt: iso(clock.now() - ageHours * HOUR) }));
    const before = testWorker({ corner, store: bucket.store, clock });
    await before.door.admit(jobs);
    startWorker(held.attempt, { concurrency: 1 });
    for (let count = 1; count <= 4; count += 1) {
      await until(() => held.begun.length === count);
      held.end(held.begun.at(-1) ?? '');
    }
    expect(held.begun).toEqual([2, 1, 3, 0].map((index) => jobs[index]?.mediaId));
  });

  test('sleeps while all its slots are taken, whatever is due', async () => {
    const held = heldAttempts();
    const worker = startWorker(held.attempt, { concurrency: 2 });
    const [retried, ...others] = many(3);
    await worker.door.admit(retried === undefined ? [] : [retried]);
    await until(() => held.running.length === 1);
    held.end(retried?.mediaId ?? '', { ok: false, failure: failure('weixin-busy') });
    await until(async () => (await worker.lane.counts()).delayed === 1);
    await sweep(worker);
    await worker.door.admit(others);
    await until(() => held.running.length === 2);
    clock.advance(HOUR);
    await sweep(worker);
    const before = worker.turns();
    // A second, by the clock of Redis.
    await corner.connect().bzpopmin(`${corner.prefix}:nothing`, 1);
    expect(worker.turns() - before).toBeLessThan(50);
  });
});

describe('a closed gate', () => {
  const QUOTA = failure('quota-exhausted', { errcode: 45009 });

  /** Somebody looks at the gate, until `letLook`. */
  const holdLook = (appId: string): Promise<unknown> => corner.redis.set(corner.keys.probe(appId), 'somebody');

  /** Lets one of the workers have one look, and waits until it has begun. */
  async function letLook(appId: string): Promise<void> {
    await corner.redis.del(corner.keys.probe(appId));
    await until(async () => {
      clock.advance(5 * SECOND);
      return (await corner.redis.exists(corner.keys.probe(appId))) === 1;
    });
    await holdLook(appId);
  }

  test('keeps the jobs of its app back, and those of other apps run', async () => {
    const held = heldAttempts();
    const before = testWorker({ corner, store: bucket.store, clock });
    await before.gates.close(APP_ID, 'quota-exhausted', QUOTA);
    const others = many(5, { appId: OTHER_APP_ID });
    await before.door.admit([...many(5), ...others]);
    const worker = startWorker(held.attempt, { concurrency: 10, apps: [APP_ID, OTHER_APP_ID] });
    await until(() => held.running.length === 5);
    await sweep(worker);
    expect(held.begun.toSorted()).toEqual(others.map(({ mediaId }) => mediaId).toSorted());
  });

  test('is probed by one job when its time comes, and opens for all when that gets through', async () => {
    const held = heldAttempts();
    const before = testWorker({ corner, store: bucket.store, clock });
    const { gate } = await before.gates.close(APP_ID, 'quota-exhausted', QUOTA);
    await before.door.admit(many(6));
    const workers = [startWorker(held.attempt), startWorker(held.attempt)];
    const looked = async (): Promise<boolean> => (await before.lane.counts()).delayed > 0;
    await until(looked);
    expect(held.begun).toEqual([]);

    await holdLook(APP_ID);
    clock.advance(gate.probeAt - clock.now());
    await letLook(APP_ID);
    await until(() => held.running.length === 1);
    for (const worker of workers) await sweep(worker);
    expect(held.begun).toHaveLength(1);

    held.end(held.running[0] ?? '', { ok: false, failure: QUOTA });
    await until(async () => ((await before.gates.list())[0]?.probeAt ?? 0) > clock.now());
    await letLook(APP_ID);
    for (const worker of workers) await sweep(worker);
    expect(held.begun).toHaveLength(1);

    const [putOff] = await before.gates.list();
    clock.advance((putOff?.probeAt ?? 0) - clock.now());
    await letLook(APP_ID);
    await until(() => held.begun.length === 2);
    held.end(held.running[0] ?? '');
    await until(() => {
      clock.advance(SECOND);
      return held.begun.length === 7;
    });
    expect(await before.gates.list()).toEqual([]);
  });

  test('is probed also while other apps keep all slots busy', async () => {
    const held = heldAttempts();
    const before = testWorker({ corner, store: bucket.store, clock });
    const { gate } = await before.gates.close(OTHER_APP_ID, 'rate-limited', failure('rate-limited'));
    await holdLook(OTHER_APP_ID);
    const kept = young({ appId: OTHER_APP_ID });
    await before.door.admit([kept, ...many(30)]);
    const worker = startWorker(held.attempt, { concurrency: 2, apps: [APP_ID, OTHER_APP_ID] });
    await until(() => held.running.length === 2);
    clock.advance(gate.probeAt - clock.now());
    await corner.redis.del(corner.keys.probe(OTHER_APP_ID));
    for (let ended = 0; ended < 5 && !held.begun.includes(kept.mediaId); ended += 1) {
      // Long jobs: the sweep comes while all slots are taken.
      await sweep(worker);
      const begun = held.begun.length;
      held.end(held.running[0] ?? '');
      await until(() => held.begun.length > begun);
    }
    expect(held.begun).toContain(kept.mediaId);
  });

  test('lets the media through whose last moment has come, and only those', async () => {
    const held = heldAttempts();
    const before = testWorker({ corner, store: bucket.store, clock });
    await before.gates.close(APP_ID, 'app-secret-frozen', failure('app-secret-frozen'));
    const dying = Array.from({ length: 3 }, () => young({ receivedAt: iso(clock.now() - 72 * HOUR + 1.5 * SECOND) }));
    await before.door.admit([...many(3), ...dying]);
    startWorker(held.attempt);
    for (let count = 1; count <= 3; count += 1) {
      await until(() => held.begun.length === count);
      held.end(held.begun.at(-1) ?? '', { ok: false, failure: failure('app-secret-frozen') });
    }
    await until(async () => (await before.index.count()) === 3);
    expect(held.begun.toSorted()).toEqual(dying.map(({ mediaId }) => mediaId).toSorted());
    // A letter is listed before its job goes.
    await until(async () => (await before.lane.counts()).active === 0);
  });
});

describe('an app that no worker has the credential of', () => {
  test('is noticed, and served as soon as one has', async () => {
    const job = young({ appId: OTHER_APP_ID });
    const poor = startWorker(async ({ appId }) => ({
      ok: false,
      failure: failure('app-not-configured', { detail: appId }),
    }));
    await poor.door.admit([job]);
    await until(async () => {
      clock.advance(5 * SECOND);
      return (await poor.gates.list()).some(({ reason }) => reason === 'app-not-configured');
    });
    const rich = startWorker(async (taken) => archivedAs(taken), { apps: [OTHER_APP_ID] });
    await until(async () => {
      clock.advance(5 * SECOND);
      return (await rich.markers.find([mediaJobId(job)]))[0] !== undefined;
    });
    expect(await rich.gates.list()).toEqual([]);
  });

  test('is left to the workers that have it', async () => {
    const held = heldAttempts();
    const rich = startWorker(held.attempt, { apps: [OTHER_APP_ID] });
    await until(() => rich.turns() > 1);
    const poor = startWorker(held.attempt, { apps: [] });
    const job = young({ appId: OTHER_APP_ID });
    await poor.door.admit([job]);
    await until(() => held.running.length === 1);
    expect([poor.dispatcher.inFlight, rich.dispatcher.inFlight]).toEqual([0, 1]);
  });
});

describe('several takes of a lane at a time', () => {
  /** Counts takes that are under way, those that brought nothing, and how many there were when the last one did. */
  function counting(): { through: (lane: Lane) => Lane; most: () => number; empty: () => number } {
    let underWay = 0;
    let most = 0;
    let empty = 0;
    const through = (lane: Lane): Lane => ({
      ...lane,
      take: async (token) => {
        underWay += 1;
        most = Math.max(most, underWay);
        try {
          const taken = await lane.take(token);
          if (taken.job === undefined) empty += 1;
          return taken;
        } finally {
          underWay -= 1;
        }
      },
    });
    return { through, most: () => most, empty: () => empty };
  }

  test('are under way while it has jobs, and never more jobs run than there are slots', async () => {
    const { through, most } = counting();
    const held = heldAttempts();
    const handedIn = many(40);
    await testWorker({ corner, store: bucket.store, clock }).door.admit(handedIn);
    const worker = startWorker(held.attempt, { through, concurrency: 20 });
    await until(() => held.running.length === 20);
    expect(most()).toBeGreaterThan(1);
    expect(most()).toBeLessThanOrEqual(8);
    let ended = 0;
    while (ended < handedIn.length) {
      expect(held.running.length).toBeLessThanOrEqual(20);
      const [mediaId] = held.running;
      if (mediaId === undefined) {
        await until(() => held.running.length > 0);
        continue;
      }
      held.end(mediaId);
      await until(() => !held.running.includes(mediaId));
      ended += 1;
    }
    await until(() => worker.dispatcher.inFlight === 0);
    expect(held.begun.toSorted()).toEqual(handedIn.map(({ mediaId }) => mediaId).toSorted());
  });

  test('are one where the last brought nothing', async () => {
    const { through, empty } = counting();
    const worker = startWorker(async (job) => archivedAs(job), { through, concurrency: 20 });
    await until(() => worker.turns() > 1);
    for (const job of many(5)) {
      const before = empty();
      const turns = worker.turns();
      await worker.door.admit([job]);
      await until(() => worker.events.some((event) => event.type === 'archived' && event.job.mediaId === job.mediaId));
      await until(() => worker.turns() > turns + 2);
      // One that looks for a second job, and one that was let go beside it.
      expect(empty() - before).toBeLessThanOrEqual(3);
    }
  });

  test('whose empty answer is late do not cover what has come meanwhile', async () => {
    const held = heldAttempts();
    const late = Promise.withResolvers<void>();
    let isAsked = false;
    const worker = startWorker(held.attempt, {
      // What it sees goes to another worker just then.
      glance: async (names) => names.map((name) => ({ ready: name === laneOf(APP_ID), nextAt: undefined })),
      through: (lane) => ({
        ...lane,
        take: async (token) => {
          const answer = await lane.take(token);
          if (isAsked) return answer;
          isAsked = true;
          await late.promise;
          return answer;
        },
      }),
    });
    await until(() => isAsked);
    const job = young();
    await worker.door.admit([job]);
    await until(async () => (await corner.redis.exists(worker.lane.markerKey)) === 0);
    late.resolve();
    await until(() => held.begun.includes(job.mediaId));
  });

  test('that Redis does not answer are told once, and are tried again', async () => {
    let isBroken = true;
    const through = (lane: Lane): Lane => ({
      ...lane,
      take: async (token) => {
        if (isBroken) throw new Error('no answer');
        return lane.take(token);
      },
    });
    const worker = startWorker(async (job) => archivedAs(job), { through });
    await worker.door.admit(many(3));
    await until(() => worker.events.some(({ type }) => type === 'fault'));
    const turns = worker.turns();
    await until(() => worker.turns() > turns + 3);
    expect(worker.events.filter(({ type }) => type === 'fault')).toHaveLength(1);
    isBroken = false;
    clock.advance(2 * SECOND);
    await until(() => worker.events.filter(({ type }) => type === 'archived').length === 3);
    expect(worker.dispatcher.inFlight).toBe(0);
  });
});

describe('a slot whose job is done', () => {
  test('goes on with the next of the lane in one step', async () => {
    const steps: string[] = [];
    const counted =
      <A, R>(name: string, step: (argument: A) => R) =>
      (argument: A): R => {
        steps.push(name);
        return step(argument);
      };
    const through = (lane: Lane): Lane => ({
      ...lane,
      take: counted('take', lane.take),
      complete: counted('complete', lane.complete),
      completeAndTake: counted('both', lane.completeAndTake),
    });
    await testWorker({ corner, store: bucket.store, clock }).door.admit(many(5));
    const worker = startWorker(async (job) => archivedAs(job), { concurrency: 1, through });
    await until(() => worker.events.filter(({ type }) => type === 'archived').length === 5);
    // A marker that is left may be looked after once more.
    expect(steps.slice(0, 6)).toEqual(['take', 'both', 'both', 'both', 'both', 'both']);
  });

  test('is taken for by itself after a job that could not be settled', async () => {
    const steps: string[] = [];
    const through = (lane: Lane): Lane => ({
      ...lane,
      take: (token) => {
        steps.push('take');
        return lane.take(token);
      },
      complete: async (done) => {
        steps.push('complete');
        return lane.complete(done);
      },
      completeAndTake: async () => {
        steps.push('both');
        throw new Error('OOM command not allowed');
      },
    });
    await testWorker({ corner, store: bucket.store, clock }).door.admit(many(3));
    startWorker(async (job) => archivedAs(job), { concurrency: 1, through });
    await until(() => steps.length >= 5);
    expect(steps.slice(0, 5)).toEqual(['take', 'both', 'take', 'complete', 'take']);
  });
});

describe('a worker that stops', () => {
  test('takes no more, and waits for what runs', async () => {
    const held = heldAttempts();
    const worker = startWorker(held.attempt, { concurrency: 2 });
    const jobs = many(5);
    await worker.door.admit(jobs);
    await until(() => held.running.length === 2);
    let stopped = false;
    const stopping = worker.dispatcher.stop(GRACE_MS).then(() => {
      stopped = true;
    });
    const [first, second] = [...held.running];
    held.end(first ?? '');
    await until(() => worker.dispatcher.inFlight === 1);
    expect(stopped).toBe(false);
    held.end(second ?? '');
    await Promise.all([stopping, worker.running]);
    expect(held.begun).toHaveLength(2);
    expect(await worker.lane.counts()).toMatchObject({ waiting: 3, delayed: 0, active: 0 });
  });

  test('puts back what has not ended in time, with nothing used up', async () => {
    const held = heldAttempts();
    const worker = startWorker(held.attempt, { concurrency: 2 });
    const jobs = many(2);
    await worker.door.admit(jobs);
    await until(() => held.running.length === 2);
    await worker.dispatcher.stop(1);
    await worker.running;
    expect(worker.events.map(({ type }) => type)).toEqual(['released', 'released']);
    expect(await worker.lane.counts()).toMatchObject({ active: 0 });
    for (const _ of jobs) {
      const { data, starts, returns } = await takeOne(worker.lane);
      expect([starts, returns]).toEqual([2, 1]);
      expect(JSON.parse(data)).not.toHaveProperty('ledger');
    }
  });

  test('while a job is on its way to it puts that back before its loop ends', async () => {
    const [onTheWay, arrives] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const through = (lane: Lane): Lane => ({
      ...lane,
      take: async (token) => {
        const taken = await lane.take(token);
        if (taken.job === undefined) return taken;
        onTheWay.resolve();
        await arrives.promise;
        return taken;
      },
      delay: async (...args) => {
        for (let answers = 0; answers < 1_000; answers += 1) await corner.redis.ping();
        return lane.delay(...args);
      },
    });
    const held = heldAttempts();
    const worker = startWorker(held.attempt, { through });
    await worker.door.admit(many(1));
    await onTheWay.promise;
    await worker.dispatcher.stop(GRACE_MS);
    arrives.resolve();
    await worker.running;
    expect(worker.events).toMatchObject([{ type: 'released', cause: 'shutdown' }]);
    expect(await takeOne(worker.lane)).toMatchObject({ starts: 2, returns: 1 });
  });

  test('while a job is on its way to a slot that another leaves puts that back', async () => {
    const [onTheWay, arrives] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const through = (lane: Lane): Lane => ({
      ...lane,
      completeAndTake: async (done) => {
        const taken = await lane.completeAndTake(done);
        onTheWay.resolve();
        await arrives.promise;
        return taken;
      },
    });
    const held = heldAttempts();
    const worker = startWorker(held.attempt, { concurrency: 1, through });
    await worker.door.admit(many(2));
    await until(() => held.running.length === 1);
    held.end(held.running[0] ?? '');
    await onTheWay.promise;
    const stopped = worker.dispatcher.stop(GRACE_MS);
    arrives.resolve();
    await stopped;
    await worker.running;
    expect(worker.events).toMatchObject([{ type: 'archived' }, { type: 'released', cause: 'shutdown' }]);
    expect(await takeOne(worker.lane)).toMatchObject({ starts: 2, returns: 1 });
  });

  test('while it is idle is gone at once, and may be asked twice', async () => {
    const worker = startWorker(heldAttempts().attempt);
    await until(() => worker.turns() > 1);
    await Promise.all([worker.dispatcher.stop(GRACE_MS), worker.dispatcher.stop(GRACE_MS), worker.running]);
    expect(worker.dispatcher.inFlight).toBe(0);
  });

  test('before it has begun never begins', async () => {
    const held = heldAttempts();
    const before = testWorker({ corner, store: bucket.store, clock });
    await before.door.admit(many(3));
    const worker = startWorker(held.attempt);
    await Promise.all([worker.dispatcher.stop(0), worker.running]);
    expect(held.running).toEqual([]);
    expect(await before.lane.counts()).toMatchObject({ active: 0 });
  });
});

describe('a Redis of its own', () => {
  /** A redis-server for this test alone, which can be stopped. */
  async function ownRedis(): Promise<TestRedis & { signal(name: NodeJS.Signals): void; restart(): Promise<void> }> {
    const directory = await mkdtemp(join(tmpdir(), 'weixin-media-dispatcher-'));
    parts.defer(() => rm(directory, { recursive: true, force: true }));
    let server = await startRedisServer(redisExecutable(), { directory, appendOnly: true });
    parts.defer(async () => {
      server.process.kill('SIGCONT');
      await server.stop();
    });
    const { url, port } = server;
    const prefix = '{own}';
    const connect = (): RedisClient => {
      const client = connectRedis(
        { url: new Secret(url), prefix, sentinelMaster: '' },
        'patient',
        't',
        () => undefined,
      );
      parts.defer(() => closeRedis(client));
      return client;
    };
    return {
      url,
      prefix,
      connect,
      redis: connect(),
      keys: redisKeys(prefix),
      [Symbol.asyncDispose]: async () => undefined,
      signal: (name) => void server.process.kill(name),
      restart: async () => {
        await server.stop();
        server = await startRedisServer(redisExecutable(), { directory, appendOnly: true, port });
      },
    };
  }

  test.each(['SIGSTOP', 'SIGKILL'] as const)(
    'that is gone (%s) does not keep a worker from stopping',
    async (signal) => {
      const own = await ownRedis();
      const held = heldAttempts();
      const worker = startWorker(held.attempt, { in: own });
      await worker.door.admit(many(3));
      await until(() => held.running.length === 3);
      own.signal(signal);
      await worker.dispatcher.stop(1);
      expect(held.running).toEqual([]);
    },
  );

  test(
    'that comes back finds the worker at work, and no job lost',
    async () => {
      const own = await ownRedis();
      const worker = startWorker(async (job) => archivedAs(job), { in: own });
      const jobs = many(20);
      await worker.door.admit(jobs.slice(0, 10));
      await own.restart();
      await worker.door.admit(jobs.slice(10));
      await until(async () => {
        clock.advance(SECOND);
        // The marker comes first, and then the job goes.
        const { active } = await worker.lanes.lane(laneOf(APP_ID)).counts();
        return active === 0 && (await worker.markers.find(jobs.map(mediaJobId))).every((key) => key !== undefined);
        // A job whose taking was told to a connection that broke comes back when its lock, which nobody holds, has run out.
      }, 2.5 * LOCK_MS);
    },
    3 * LOCK_MS,
  );
});
