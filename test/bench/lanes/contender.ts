import { DelayedError, Queue, Worker } from 'bullmq';
import { type MediaJob, mediaJobId } from '../../../src/media/media-job.ts';
import { createDispatcher } from '../../../src/queue/dispatcher.ts';
import { createDoor } from '../../../src/queue/door.ts';
import { createFleet } from '../../../src/queue/fleet.ts';
import { createGates } from '../../../src/queue/gates.ts';
import { createLockKeeper } from '../../../src/queue/lock-keeper.ts';
import { openLanes } from '../../../src/queue/open-lanes.ts';
import type { RunJob } from '../../../src/queue/run-job.ts';
import { closeRedis, connectRedis, type Patience, type RedisClient } from '../../../src/redis/connect.ts';
import { redisKeys } from '../../../src/redis/keys.ts';
import { Secret } from '../../../src/secret.ts';
import { elapsed, HOUR, MINUTE } from '../../../src/time.ts';

/** What is done with a job of an app; `false` when its gate is closed and it must go back. */
export type Work = (job: MediaJob) => Promise<boolean>;

/** A way to queue jobs of many apps and to run them on one worker. */
export interface Contender extends AsyncDisposable {
  readonly redis: RedisClient;
  add(jobs: readonly MediaJob[]): Promise<void>;
  /** Closes the gate of an app, for workers that know gates. */
  closeGate(appId: string): Promise<void>;
  /** Starts a worker; it takes no more once it is disposed of. */
  start(apps: readonly string[], concurrency: number, work: Work): Promise<AsyncDisposable>;
}

export type OpenContender = (redisUrl: string) => Contender;

const PREFIX = '{weixin-media}';
const LOCK_MS = MINUTE;
const TTL_MS = 72 * HOUR;
const DELAY_MS = MINUTE;
/** Jobs in one command. */
const BATCH = 1_000;

/** Ours: the dispatcher, the lanes, the gates and the door of the worker. */
export const ourLanes: OpenContender = (redisUrl) => {
  const connections = openConnections(redisUrl);
  const redis = connections.connect('patient');
  const keys = redisKeys(PREFIX);
  const now = Date.now;
  const lanes = openLanes(redis, PREFIX, { lockMs: LOCK_MS, rescueEveryMs: LOCK_MS / 2 });
  const door = createDoor({ redis, keys, lanes, mediaTtlMs: TTL_MS, openId: { type: 'none' }, now });
  const gates = createGates(redis, keys, now, elapsed, Math.random);

  return {
    redis,
    add: async (jobs) => {
      await door.admit(jobs);
    },
    closeGate: async (appId) => {
      await gates.close(appId, 'ip-not-allowed', { code: 'ip-not-allowed' });
    },
    start: async (apps, concurrency, work) => {
      const locks = createLockKeeper(LOCK_MS, fault);
      const runJob: RunJob = async (lane, taken, _onlyIfDue, _signal, slot) => {
        const done = await work(JSON.parse(taken.data) as MediaJob);
        if (done && slot?.goesOn() === true) await slot.goOn(() => lane.completeAndTake(taken));
        else if (done) await lane.complete(taken);
        else await lane.delay(taken, undefined, now());
        return done;
      };
      const own = new Set(apps);
      const dispatcher = createDispatcher({
        redis,
        blocking: connections.connect('blocking'),
        keys,
        lanes,
        gates,
        fleet: createFleet(redis, keys, now),
        locks,
        runJob,
        apps: { has: (appId) => own.has(appId), list: () => apps, refresh: async () => undefined },
        concurrency,
        rescueEveryMs: LOCK_MS / 2,
        now,
        elapsed,
        observe: (event) => {
          if (event.type === 'fault') fault(event.error);
        },
      });
      const running = dispatcher.run();
      return {
        [Symbol.asyncDispose]: async () => {
          await dispatcher.stop(MINUTE);
          locks.stop();
          await running;
        },
      };
    },
    [Symbol.asyncDispose]: async () => {
      await lanes.close();
      await connections.close();
    },
  };
};

/** One queue for all apps, run by BullMQ's own worker: a job whose gate is closed is put back for a minute. */
export const oneQueue: OpenContender = (redisUrl) => {
  const connections = openConnections(redisUrl);
  const redis = connections.connect('patient');
  const queue = new Queue<MediaJob>('all', { connection: redis, prefix: PREFIX });

  return {
    redis,
    add: async (jobs) => {
      for (let start = 0; start < jobs.length; start += BATCH) {
        await queue.addBulk(
          jobs.slice(start, start + BATCH).map((data) => ({
            name: 'archive',
            data,
            opts: { jobId: mediaJobId(data), priority: 1, removeOnComplete: true },
          })),
        );
      }
    },
    closeGate: async () => undefined,
    start: async (_apps, concurrency, work) => {
      const worker = new Worker<MediaJob>(
        'all',
        async (job, token) => {
          if (await work(job.data)) return;
          await job.moveToDelayed(Date.now() + DELAY_MS, token);
          throw new DelayedError();
        },
        {
          connection: connections.connect('blocking'),
          prefix: PREFIX,
          concurrency,
          lockDuration: LOCK_MS,
          stalledInterval: LOCK_MS / 2,
        },
      );
      worker.on('error', fault);
      await worker.waitUntilReady();
      return { [Symbol.asyncDispose]: () => worker.close() };
    },
    [Symbol.asyncDispose]: async () => {
      await queue.close();
      await connections.close();
    },
  };
};

interface Connections {
  connect(patience: Patience): RedisClient;
  close(): Promise<void>;
}

function openConnections(redisUrl: string): Connections {
  const open: RedisClient[] = [];
  return {
    connect: (patience) => {
      const config = { url: new Secret(redisUrl), prefix: PREFIX, sentinelMaster: '' };
      const client = connectRedis(config, patience, 'bench', fault);
      open.push(client);
      return client;
    },
    close: async () => {
      await Promise.all(open.map(closeRedis));
    },
  };
}

/** A bench that meets an error measures something else than it says. */
function fault(error: unknown): void {
  console.error(error);
  process.exitCode = 1;
}
