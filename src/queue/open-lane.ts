import {
  type IQueueBackend,
  type JobJson,
  type MinimalJob,
  Queue,
  type QueueBaseOptions,
  type RedisQueueBackend,
} from 'bullmq';
import type { RedisClient } from '../redis/connect.ts';
import type { Clock } from '../time.ts';
import { countOf, isCounterError } from './job-counters.ts';
import { type Lane, LockLostError, type Taken, type TakenJob } from './lane.ts';
import { lowestPriorityIn } from './lowest-priority.ts';
import { dropStrandedJobs, heldJobs } from './stranded-jobs.ts';

const JOB_NAME = 'archive';

/** Jobs of a lane that are looked at for one of ours: as many as a fleet may run, and the newest come first. */
const MOST_ACTIVE = 4_999;

/** Opens the lane of an app as a BullMQ queue. @param root the backend whose connection it shares. */
export function openLane(
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
      // In no state for a moment, it may have been taken for one that was left half-way, and added anew.
      if (!(await putBackActive(job))) throw new LockLostError(`${job.id} is no longer ours`);
      await ofOurs(step);
    }
  }

  /** Returns false when the job is gone. */
  async function putBackActive({ id, token, starts, returns }: TakenJob): Promise<boolean> {
    const [key, active] = [backend.toKey(id), backend.toKey('active')];
    const arguments_ = [starts, returns, token, options.lockDuration, id];
    return (await redis.eval(PUT_BACK_ACTIVE, 3, key, `${key}:lock`, active, ...arguments_)) === 1;
  }

  const complete = (job: TakenJob): Promise<void> =>
    settled(job, () => backend.moveToCompleted(minimalJob(job), null, true, job.token, false));

  /**
   * Finds by our lock what was taken by a step that broke on it, or whose answer was lost.
   *
   * BullMQ counts the start and parses the job's options after the job has been moved; a job put there by hand with
   * options that aren't JSON, or a count that isn't a number, would be taken, fail here, be rescued and taken again for
   * ever.
   *
   * @param endedId the job that had the same token before.
   */
  async function takenWith(token: string, endedId?: string): Promise<Taken | undefined> {
    const active = (await redis.lrange(backend.toKey('active'), 0, MOST_ACTIVE)).filter((id) => id !== endedId);
    if (active.length === 0) return undefined;
    const tokens = await redis.mget(active.map((id) => `${backend.toKey(id)}:lock`));
    const id = active[tokens.indexOf(token)];
    if (id === undefined) return undefined;
    const [data, starts, returns] = await redis.hmget(backend.toKey(id), 'data', 'ats', 'atm');
    const counts = { attemptsStarted: countOf(starts, 1), attemptsMade: countOf(returns, 0) };
    return takenOf([{ data: data ?? '', ...counts }, id, 0, 0], token);
  }

  const lowestOf = (set: string): Promise<number | undefined> =>
    lowestPriorityIn(redis, backend.toKey(set), backend.toKey(''));

  return {
    name,
    markerKey: backend.toKey('marker'),
    keyOfJob: (id) => backend.toKey(id),

    dropStranded: (ids) => dropStrandedJobs(redis, backend.toKey(''), ids),
    held: (ids) => heldJobs(redis, backend.toKey(''), ids),

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
      try {
        return takenOf((await backend.moveToActive(token)) as Activated, token);
      } catch (error) {
        if (!isOfJobItself(error)) throw error;
        const taken = await takenWith(token);
        if (taken === undefined) throw error;
        return taken;
      }
    },

    delay: (job, data, at) =>
      settled(job, () =>
        backend.moveToDelayed(job.id, Math.floor(at), 0, job.token, {
          // Counts as an attempt made, which is how the returns of a job are told from the deaths of its workers.
          skipAttempt: false,
          ...(data === undefined ? {} : { fieldsToUpdate: { data: JSON.stringify(data) } }),
        }),
      ),

    update: async (job, data) => {
      const key = backend.toKey(job.id);
      const written = await redis.eval(WRITE_IF_LOCKED, 2, key, `${key}:lock`, job.token, JSON.stringify(data));
      if (written !== 1) throw new LockLostError(`${job.id} is no longer ours`);
    },

    complete,

    completeAndTake: async (job) => {
      try {
        const { result } = await ofOurs(() => backend.moveToCompleted(minimalJob(job), null, true, job.token, true));
        return takenOf(result as Activated, job.token);
      } catch (error) {
        // Over a connection that broke for good nothing can be asked.
        if (!(error instanceof LockLostError || isReply(error) || isOfJobItself(error))) throw error;
        // Where the next one was taken, this one had ended before: the step broke behind that, or it was sent twice.
        const taken = await takenWith(job.token, job.id);
        if (taken !== undefined) return taken;
        if (error instanceof LockLostError) throw error;
        if (isCounterError(error) && (await putBackActive(job))) await complete(job);
        else if ((await redis.exists(backend.toKey(job.id))) === 1) throw error;
        // What was wrong with the next one is met by whoever takes it.
        return { nextAt: 0 };
      }
    },

    fail: (job, reason) => settled(job, () => backend.moveToFailed(minimalJob(job), reason, true, job.token, false)),

    extendLocks: async (jobs) => {
      if (jobs.length === 0) return [];
      return backend.extendLocks(
        jobs.map(({ id }) => id),
        jobs.map(({ token }) => token),
        options.lockDuration,
      );
    },

    rescue: async () => {
      await redis.eval(MEND_RESCUE_COUNTS, 1, backend.toKey('active'), backend.toKey(''));
      return backend.moveStalledJobsToWait();
    },

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
      if (json === undefined || state === 'unknown') return undefined;
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

/** Where the scripts that take a job expect the time: behind their keys, and the prefix or the id of the job that ends. */
const TIME_OF_TAKE: Readonly<Record<string, number>> = { moveToActive: 12, moveToFinished: 15 };

/** BullMQ knows no clock but that of its process, and takes a delayed job when that says so. */
function takeByClock(backend: RedisQueueBackend, now: Clock): void {
  const run = backend.execCommand.bind(backend);
  backend.execCommand = (client, command, args) => {
    const place = TIME_OF_TAKE[command];
    return run(client, command, place === undefined ? args : args.with(place, now()));
  };
}

export interface LaneLockOptions {
  readonly lockDuration: number;
}

/** BullMQ's own does not ask whose the job is. */
const WRITE_IF_LOCKED = `
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'data', ARGV[2])
return 1`;

const PUT_BACK_ACTIVE = `
if redis.call('HEXISTS', KEYS[1], 'ats') == 0 then return 0 end
local held = redis.call('GET', KEYS[2])
if held and held ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], 'ats', ARGV[1], 'atm', ARGV[2])
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
redis.call('LREM', KEYS[3], 0, ARGV[5])
redis.call('LPUSH', KEYS[3], ARGV[5])
return 1`;

/**
 * BullMQ counts the rescues of a job after it has taken it out of the active ones: on a count that somebody has overwritten
 * it would break there, and the job would be nowhere.
 */
const MEND_RESCUE_COUNTS = `
for _, id in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  local count = redis.pcall('HGET', ARGV[1] .. id, 'stc')
  if type(count) == 'string' and count ~= '0' and (#count > 9 or not string.find(count, '^[1-9]%d*$')) then
    redis.call('HSET', ARGV[1] .. id, 'stc', 0)
  end
end`;

/** BullMQ scores a prioritized job `priority * 2^32 + counter`. */
const PRIORITY_SCORE_UNIT = 2 ** 32;
/** And a delayed one `due * 4096 + counter`. */
export const DELAYED_SCORE_UNIT = 4_096;

/** Empty when there was nothing to take. */
type Activated = [json: Partial<JobJson> | null | undefined, id: string, limitDelay: number, nextAt: number];

function takenOf([json, id = '', , nextAt = 0]: Activated, token: string): Taken {
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
}

/** True where Redis has answered. */
function isReply(error: unknown): boolean {
  return error instanceof Error && error.name === 'ReplyError';
}

/** True for what a job does to BullMQ that has something odd in its fields. */
function isOfJobItself(error: unknown): boolean {
  return error instanceof SyntaxError || error instanceof TypeError || isCounterError(error);
}

/** What BullMQ's scripts need of a job: its id, and a count that is compared when it fails. */
function minimalJob({ id }: TakenJob): MinimalJob {
  return { id, name: JOB_NAME, data: undefined, opts: { attempts: 1 } } as unknown as MinimalJob;
}

/** The codes of BullMQ's scripts for a job that is gone, not locked, not active or locked by another. */
const NOT_OURS = new Set([-1, -2, -3, -6]);

async function ofOurs<T>(step: () => Promise<T>): Promise<T> {
  try {
    return await step();
  } catch (error) {
    if (error instanceof Error && 'code' in error && typeof error.code === 'number' && NOT_OURS.has(error.code)) {
      throw new LockLostError(error.message);
    }
    throw error;
  }
}
