import {
  createRedisBackend,
  type IQueueBackend,
  type JobJson,
  type MinimalJob,
  Queue,
  type QueueBaseOptions,
  type RedisQueueBackend,
} from 'bullmq';
import { appIdSchema } from '../media/media-job.ts';
import type { RedisClient } from '../redis/connect.ts';
import type { Clock } from '../time.ts';

/**
 * A lane is the BullMQ queue of one app. Each app has its own, so that an app whose gate is closed costs nothing, none
 * can stand in the way of another, and its depth is known at once. Only this folder knows.
 *
 * The lane `media` has no app: jobs that other programs put there with a BullMQ client of their own are moved to the
 * lane of their app when a worker meets them.
 */
export const INBOX_LANE = 'media';

const JOB_NAME = 'archive';

/** BullMQ's event streams serve nobody here; the shortest it can keep is one node of the stream. */
const EVENTS_KEPT = 1;

export function laneOf(appId: string): string {
  return `${INBOX_LANE}-${appId}`;
}

/** Returns the app of a lane; `undefined` for the inbox. */
export function appOfLane(lane: string): string | undefined {
  return appIdSchema.safeParse(lane.slice(INBOX_LANE.length + 1)).data;
}

/** A job as a worker holds it: taken out of its lane, locked with `token`. */
export interface TakenJob {
  readonly id: string;
  /** As it lies in Redis; anybody may have written it. */
  readonly data: string;
  readonly token: string;
  /** How often it has been taken, this time included. */
  readonly starts: number;
  /** How often it has been put back. One start more than that, beside this one, says that a worker died with it. */
  readonly returns: number;
  /** Unix times in milliseconds. */
  readonly enqueuedAt: number;
  readonly priority: number;
}

/** A job, or when the next delayed one is due (`undefined`: none is). */
export type Taken = { readonly job: TakenJob } | { readonly job?: undefined; readonly nextAt: number | undefined };

/** A job as anybody may look at it. */
export interface PeekedJob {
  readonly state: string;
  readonly data: string;
  readonly starts: number;
  /** When a delayed one is due, as a Unix time in milliseconds; `undefined` for others. */
  readonly dueAt: number | undefined;
}

export interface NewJob {
  readonly id: string;
  readonly data: unknown;
  readonly priority: number;
}

export interface LaneCounts {
  /** Ready to run. */
  readonly waiting: number;
  readonly delayed: number;
  readonly active: number;
  /** Left behind by something that is not ours. */
  readonly failed: number;
}

/** Thrown by a settling step when the lock has gone to another worker meanwhile: the job is no longer ours. */
export class LockLostError extends Error {
  override readonly name = 'LockLostError';
}

/**
 * What can be done with a lane. Every step is one Lua script of BullMQ and so happens whole or not at all.
 *
 * Built on BullMQ's queue backend rather than on its Worker: that one serves one queue with one blocking connection of
 * its own, and runs what comes first.
 */
export interface Lane {
  readonly name: string;
  /** Popped by whoever waits for work in this lane. */
  readonly markerKey: string;
  /** Adds jobs whose ids are not there yet; the others are left as they are. */
  add(jobs: readonly NewJob[]): Promise<void>;
  take(token: string): Promise<Taken>;
  /** Puts a taken job back, to be taken again from `at` on. @throws LockLostError */
  delay(job: TakenJob, data: object | undefined, at: number): Promise<void>;
  /** Writes the data of a taken job. */
  update(job: TakenJob, data: object): Promise<void>;
  /** Removes a taken job that is done. @throws LockLostError */
  complete(job: TakenJob): Promise<void>;
  /** Removes a taken job that is given up. @throws LockLostError */
  fail(job: TakenJob, reason: string): Promise<void>;
  /** Makes locks last. Returns the ids whose lock was no longer ours. */
  extendLocks(jobs: readonly TakenJob[]): Promise<string[]>;
  /** Puts back jobs whose worker has died. Returns their ids. */
  rescue(): Promise<string[]>;
  counts(): Promise<LaneCounts>;
  /** The ready job of the highest priority, by its priority; `undefined` when none is ready. */
  firstPriority(): Promise<number | undefined>;
  /** Reads a job wherever it is in the lane. */
  peek(id: string): Promise<PeekedJob | undefined>;
  /**
   * The lowest priority among the jobs that Redis keeps in another order: those delayed, and those rescued; `undefined`
   * when there is none. Looks at each, in pages between which Redis serves others; jobs that move meanwhile may be missed.
   */
  lowestUnordered(): Promise<number | undefined>;
  keyOfJob(id: string): string;
}

/** What lies in a lane, as far as a worker asks before it takes. */
export interface Glance {
  /** True when there is a job that can run now. */
  readonly ready: boolean;
  /** When the next delayed job is due, as a Unix time in milliseconds; `undefined` when none is delayed. */
  readonly nextAt: number | undefined;
}

export interface LaneOptions {
  readonly lockMs: number;
  /** How often a worker looks for jobs whose worker has died. */
  readonly rescueEveryMs: number;
  /** Tells which delayed jobs are due. Default: the clock of this process. */
  readonly now?: Clock;
}

/** Opens lanes over one shared connection. */
export interface Lanes {
  lane(name: string): Lane;
  /** Looks into many lanes in one round trip, and takes nothing. Returns what lies in each, in their order. */
  glance(names: readonly string[]): Promise<Glance[]>;
  close(): Promise<void>;
}

export function openLanes(redis: RedisClient, prefix: string, { lockMs, rescueEveryMs, now }: LaneOptions): Lanes {
  const options = {
    connection: redis,
    prefix,
    skipVersionCheck: false,
    streams: { events: { maxLen: EVENTS_KEPT } },
    lockDuration: lockMs,
    stalledInterval: rescueEveryMs,
    // A job whose worker died is never given up for that: its deadline decides.
    maxStalledCount: Number.MAX_SAFE_INTEGER,
  };
  const lanes = new Map<string, Lane>();
  let root: IQueueBackend | undefined;

  /** BullMQ asks a Redis once what it can do. If the connection breaks just then, that backend fails for good. */
  function openRoot(): IQueueBackend {
    const opened = createRedisBackend(INBOX_LANE, options);
    opened.on('error', () => undefined);
    opened.waitUntilReady().catch(async () => {
      if (root !== opened) return;
      root = undefined;
      lanes.clear();
      await opened.close().catch(() => undefined);
    });
    return opened;
  }

  function lane(name: string): Lane {
    const known = lanes.get(name);
    if (known !== undefined) return known;
    root ??= openRoot();
    const opened = openLane(redis, root, name, options, now);
    lanes.set(name, opened);
    return opened;
  }

  return {
    lane,
    glance: async (names) => {
      const pipeline = redis.pipeline();
      for (const name of names) {
        const { keyOfJob: key } = lane(name);
        pipeline.exists(key('wait'), key('prioritized'));
        pipeline.zrange(key('delayed'), '0', '0', 'WITHSCORES');
      }
      const values = ((await pipeline.exec()) ?? []).map(([error, value]) => {
        if (error !== null) throw error;
        return value;
      });
      return names.map((_, index) => {
        const [, due] = values[2 * index + 1] as string[];
        return {
          ready: values[2 * index] !== 0,
          nextAt: due === undefined ? undefined : Math.floor(Number(due) / DELAYED_SCORE_UNIT),
        };
      });
    },
    close: async () => root?.close(),
  };
}

function openLane(
  redis: RedisClient,
  root: IQueueBackend,
  name: string,
  options: QueueBaseOptions & LaneLockOptions,
  now: Clock | undefined,
): Lane {
  const queue = new Queue(name, options, (laneName) => root.forQueue(laneName));
  // Connection errors are reported once, by the connection itself.
  queue.on('error', () => undefined);
  const backend = queue.getBackend();
  if (now !== undefined) takeByClock(backend as RedisQueueBackend, now);

  /**
   * Takes a settling step. If it breaks on a counter that somebody has overwritten, it has taken the job out of the
   * active ones by then and put it nowhere; so all is put back as it was, with counters that count, for another try.
   *
   * @throws LockLostError
   */
  async function settled(job: TakenJob, step: () => Promise<unknown>): Promise<void> {
    try {
      await ofOurs(step);
    } catch (error) {
      if (!isCounterError(error)) throw error;
      const [key, active] = [backend.toKey(job.id), backend.toKey('active')];
      await redis
        .multi()
        .hset(key, { ats: job.starts, atm: job.returns })
        .set(`${key}:lock`, job.token, 'PX', options.lockDuration)
        .lrem(active, 0, job.id)
        .lpush(active, job.id)
        .exec();
      await ofOurs(step);
    }
  }

  async function lowestOf(set: string): Promise<number | undefined> {
    let lowest = Number.POSITIVE_INFINITY;
    let cursor = '0';
    do {
      const page = await redis.eval(LOWEST_OF_PAGE, 1, backend.toKey(set), cursor, PAGE, backend.toKey(''));
      const [next, priority] = page as [string, number | null];
      lowest = Math.min(lowest, priority ?? lowest);
      cursor = next;
    } while (cursor !== '0');
    return Number.isFinite(lowest) ? lowest : undefined;
  }

  return {
    name,
    markerKey: backend.toKey('marker'),
    keyOfJob: (id) => backend.toKey(id),

    add: async (jobs) => {
      await queue.addBulk(
        jobs.map(({ id, data, priority }) => ({
          name: JOB_NAME,
          data,
          // No more options than these: they lie with every job in Redis. Whatever ends a job removes it.
          opts: { jobId: id, priority },
        })),
      );
    },

    take: async (token) => {
      const [json, id, , nextAt] = await moveToActive(backend, redis, token);
      if (json === null || json === undefined) return { nextAt: nextAt > 0 ? nextAt : undefined };
      return {
        job: {
          id,
          token,
          data: json.data ?? '',
          starts: countOf(json.attemptsStarted, 1),
          returns: countOf(json.attemptsMade, 0),
          enqueuedAt: Number(json.timestamp ?? 0),
          priority: Number(json.priority ?? 0),
        },
      };
    },

    delay: (job, data, at) =>
      settled(job, () =>
        backend.moveToDelayed(job.id, Math.floor(at), 0, job.token, {
          // Counts as an attempt made, which is how the returns of a job are told from the deaths of its workers.
          skipAttempt: false,
          ...(data === undefined ? {} : { fieldsToUpdate: { data: JSON.stringify(data) } }),
        }),
      ),

    update: (job, data) => settled(job, () => backend.updateData(minimalJob(job), data)),

    complete: (job) => settled(job, () => backend.moveToCompleted(minimalJob(job), null, true, job.token, false)),

    fail: (job, reason) => settled(job, () => backend.moveToFailed(minimalJob(job), reason, true, job.token, false)),

    extendLocks: async (jobs) => {
      if (jobs.length === 0) return [];
      return backend.extendLocks(
        jobs.map(({ id }) => id),
        jobs.map(({ token }) => token),
        options.lockDuration,
      );
    },

    rescue: () => backend.moveStalledJobsToWait(),

    counts: async () => {
      const [wait = 0, prioritized = 0, delayed = 0, active = 0, failed = 0] = await backend.getCounts([
        'wait',
        'prioritized',
        'delayed',
        'active',
        'failed',
      ]);
      return { waiting: wait + prioritized, delayed, active, failed };
    },

    firstPriority: async () => {
      const [, score] = await redis.zrange(backend.toKey('prioritized'), '0', '0', 'WITHSCORES');
      return score === undefined ? undefined : Math.floor(Number(score) / PRIORITY_SCORE_UNIT);
    },

    peek: async (id) => {
      const [json, state, due] = await Promise.all([
        backend.getJobData(id),
        backend.getState(id),
        redis.zscore(backend.toKey('delayed'), id),
      ]);
      if (json === undefined) return undefined;
      const dueAt = due === null ? undefined : Math.floor(Number(due) / DELAYED_SCORE_UNIT);
      return { state, data: json.data ?? '', starts: Number(json.attemptsStarted ?? 0), dueAt };
    },

    lowestUnordered: async () => {
      const both = await Promise.all([lowestOf('delayed'), lowestOf('wait')]);
      const found = both.filter((priority) => priority !== undefined);
      return found.length === 0 ? undefined : Math.min(...found);
    },
  };
}

/** Where the script that takes a job expects the time: behind its 11 keys and the prefix. */
const TIME_OF_TAKE = 12;

/** BullMQ knows no clock but that of its process, and takes a delayed job when that says so. */
function takeByClock(backend: RedisQueueBackend, now: Clock): void {
  const run = backend.execCommand.bind(backend);
  backend.execCommand = (client, command, args) =>
    run(client, command, command === 'moveToActive' ? args.with(TIME_OF_TAKE, now()) : args);
}

interface LaneLockOptions {
  readonly lockDuration: number;
}

/** BullMQ scores a prioritized job `priority * 2^32 + counter`. */
const PRIORITY_SCORE_UNIT = 2 ** 32;
/** And a delayed one `due * 4096 + counter`. */
const DELAYED_SCORE_UNIT = 4_096;

/** Jobs looked at in one script. Measured on two busy cores: 1 to 2 ms, in which Redis serves nobody else. */
const PAGE = 500;
/**
 * The lowest priority in one page of the delayed (ZSCAN, which misses none that stays) or of the rescued (a list).
 * Returns where the next page begins, '0' at the end, and the priority, nil where no job has one.
 */
const LOWEST_OF_PAGE = `
local ids, step, next = {}, 1, '0'
if redis.call('TYPE', KEYS[1]).ok == 'list' then
  local first, count = tonumber(ARGV[1]), tonumber(ARGV[2])
  ids = redis.call('LRANGE', KEYS[1], first, first + count - 1)
  if #ids == count then next = tostring(first + count) end
else
  local page = redis.call('ZSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
  next, ids, step = page[1], page[2], 2
end
local lowest = false
for i = 1, #ids, step do
  local priority = tonumber(redis.call('HGET', ARGV[3] .. ids[i], 'priority') or 0) or 0
  if priority > 0 and (not lowest or priority < lowest) then lowest = priority end
end
return { next, lowest }
`;

type Activated = [json: Partial<JobJson> | null | undefined, id: string, limitDelay: number, nextAt: number];

/**
 * Takes the next job.
 *
 * BullMQ counts the start and parses the job's options after the job has been moved; a job put there by hand with
 * options that aren't JSON, or a count that isn't a number, would be taken, fail here, be rescued and taken again for
 * ever. So that one is looked up by our lock.
 */
async function moveToActive(backend: IQueueBackend, redis: RedisClient, token: string): Promise<Activated> {
  try {
    return (await backend.moveToActive(token)) as Activated;
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof TypeError || isCounterError(error))) throw error;
    for (const id of await redis.lrange(backend.toKey('active'), 0, 9)) {
      if ((await redis.get(`${backend.toKey(id)}:lock`)) !== token) continue;
      const [data, starts, returns] = await redis.hmget(backend.toKey(id), 'data', 'ats', 'atm');
      return [{ data: data ?? '', attemptsStarted: countOf(starts, 1), attemptsMade: countOf(returns, 0) }, id, 0, 0];
    }
    throw error;
  }
}

/**
 * True when a script broke on a counter that is none. Redis tells by words alone; and only then has the script run at
 * all, while for other errors (LOADING, READONLY, OOM) the job may be another worker's by now.
 */
function isCounterError(error: unknown): boolean {
  return (
    error instanceof Error &&
    error.name === 'ReplyError' &&
    /hash value is not an integer|increment or decrement would overflow/.test(error.message)
  );
}

/** A counter as it should be, whatever lay in its place. */
function countOf(value: unknown, otherwise: number): number {
  const count = Number(value ?? Number.NaN);
  return Number.isSafeInteger(count) && count >= 0 ? count : otherwise;
}

/** What BullMQ's scripts need of a job: its id, and a count that is compared when it fails. */
function minimalJob({ id }: TakenJob): MinimalJob {
  return { id, name: JOB_NAME, data: undefined, opts: { attempts: 1 } } as unknown as MinimalJob;
}

/** The codes of BullMQ's scripts for a job that is gone, not locked, not active or locked by another. */
const NOT_OURS = new Set([-1, -2, -3, -6]);

async function ofOurs(step: () => Promise<unknown>): Promise<void> {
  try {
    await step();
  } catch (error) {
    if (error instanceof Error && 'code' in error && typeof error.code === 'number' && NOT_OURS.has(error.code)) {
      throw new LockLostError(error.message);
    }
    throw error;
  }
}
