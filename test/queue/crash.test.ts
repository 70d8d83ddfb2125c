import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { invalidJobId } from '../../src/dead-letter/dead-letter.ts';
import { failure } from '../../src/failure.ts';
import { type MediaJob, mediaJobId } from '../../src/media/media-job.ts';
import { INBOX_LANE } from '../../src/queue/lane.ts';
import { replay } from '../../src/queue/replay.ts';
import { deadLetterKey } from '../../src/store/object-keys.ts';
import { HOUR, iso, SECOND } from '../../src/time.ts';
import { type TestClock, testClock } from '../support/clock.ts';
import { APP_ID, testJob } from '../support/jobs.ts';
import {
  type Attempt,
  failing,
  letterOf,
  loseWorker,
  makeDue,
  never,
  openTestStore,
  storeSomething,
  type TestStore,
  type TestWorker,
  testWorker,
  type Watch,
  whereabouts,
} from '../support/queue.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

let bucket: TestStore;
let corner: TestRedis;
let clock: TestClock;

beforeAll(async () => {
  bucket = await openTestStore();
});

afterAll(() => bucket[Symbol.asyncDispose]());

beforeEach(async () => {
  corner = await openTestRedis();
  clock = testClock(Date.now());
});

afterEach(() => corner[Symbol.asyncDispose]());

/** Where in a step a process dies: before it was done, or after, with nobody there to hear of it. */
type Moment = 'before' | 'after';

/** A process that dies at its step number `fatal`, counted from 1, and does nothing more. */
class Doom {
  dead = false;
  steps = 0;
  readonly fatal: number;
  readonly moment: Moment;

  constructor(fatal: number, moment: Moment) {
    this.fatal = fatal;
    this.moment = moment;
  }

  readonly watch: Watch = (object, methods) =>
    new Proxy(object, {
      get: (target, name, receiver) => {
        const method: unknown = Reflect.get(target, name, receiver);
        if (typeof method !== 'function' || !methods.some((watched) => watched === name)) return method;
        return async (...args: unknown[]): Promise<unknown> => {
          this.stepInto('before');
          const result: unknown = await Reflect.apply(method, target, args);
          this.stepInto('after');
          return result;
        };
      },
    });

  private stepInto(moment: Moment): void {
    clock.advance(SECOND);
    if (moment === 'before') this.steps += 1;
    if (this.steps === this.fatal && moment === this.moment) this.dead = true;
    if (this.dead) throw new Error(`died ${this.moment} step ${this.fatal}`);
  }
}

function worker(attempt?: Attempt, doom?: Doom): TestWorker {
  return testWorker({
    corner,
    store: bucket.store,
    clock,
    ...(attempt === undefined ? {} : { attempt }),
    ...(doom === undefined ? {} : { watch: doom.watch }),
  });
}

/** What other workers do with a job until it has left the lane. */
async function finish(job: MediaJob, other: TestWorker): Promise<void> {
  const id = mediaJobId(job);
  for (let round = 0; round < 20; round += 1) {
    clock.advance(10 * SECOND);
    const state = (await other.lane.peek(id))?.state;
    if (state === undefined) return;
    if (state === 'active') await loseWorker(corner.redis, other.lane, id);
    if (state === 'delayed') await makeDue(corner.redis, other.lane, id);
    await other.runNext();
  }
  throw new Error(`${id} never leaves its lane`);
}

const young = (): MediaJob => testJob({ receivedAt: iso(clock.now() - HOUR) });
const UNSUPPORTED = failure('media-type-unsupported', { errcode: 40004, errmsg: 'invalid media type' });
const BUSY = failure('weixin-busy', { errcode: -1, errmsg: 'system error' });
const QUOTA = failure('quota-exhausted', { errcode: 45009, errmsg: 'reach max api daily quota limit' });

const archived = (job: MediaJob) => ({
  archivedAt: expect.stringContaining(job.mediaId),
  inLane: undefined,
  listed: undefined,
});
const dead = { archivedAt: undefined, inLane: undefined, listed: 'media-type-unsupported', letter: 'open' };

/** Hands a media in, and has it die once and put back to work. */
async function replayed(): Promise<MediaJob> {
  const job = young();
  const first = worker(failing(UNSUPPORTED));
  await first.door.admit([job]);
  await first.runNext();
  await putBack(first, job);
  return job;
}

async function putBack(by: TestWorker, job: MediaJob): Promise<unknown> {
  const summary = await by.index.get(mediaJobId(job));
  if (summary === undefined) throw new Error('it is not among the dead letters');
  const { lanes, deadLetters } = by;
  const parts = { redis: corner.redis, keys: corner.keys, lanes, deadLetters, mediaTtlMs: 72 * HOUR };
  clock.advance(SECOND);
  const options = { note: { by: 'op', reason: 'try again' }, includeExpired: false, dryRun: false };
  return replay({ ...parts, now: clock.now }, summary, options, never);
}

/** Of a media that was handed in with another one, that other. */
const companions = new WeakMap<MediaJob, MediaJob>();

async function admitted(): Promise<MediaJob> {
  const job = young();
  await worker().door.admit([job]);
  return job;
}

interface Story {
  /** What has happened before. */
  readonly begin: () => Promise<MediaJob>;
  /** What the process does that dies over it. Absent: it runs the job. */
  readonly act?: (doomed: TestWorker, job: MediaJob) => Promise<unknown>;
  /** Of the process that dies, and of those that go on. */
  readonly attempt?: Attempt;
  readonly attemptAfter?: Attempt;
  /** The least number of steps there are, lest the test sees none. */
  readonly steps: number;
  readonly end: (job: MediaJob, by: TestWorker) => Promise<void>;
}

const STORIES: Readonly<Record<string, Story>> = {
  'that is archived': {
    begin: admitted,
    steps: 4,
    end: async (job, by) => {
      expect(await whereabouts(by, job)).toEqual({ ...archived(job), letter: undefined });
    },
  },
  'that is to be tried again': {
    begin: admitted,
    attempt: failing(BUSY),
    steps: 2,
    end: async (job, by) => {
      expect(await whereabouts(by, job)).toEqual({ ...archived(job), letter: undefined });
    },
  },
  'that closes its gate': {
    begin: admitted,
    attempt: failing(QUOTA),
    steps: 3,
    end: async (job, by) => {
      expect(await whereabouts(by, job)).toEqual({ ...archived(job), letter: undefined });
      await by.gates.open(APP_ID);
    },
  },
  'that is given up': {
    begin: admitted,
    attempt: failing(UNSUPPORTED),
    attemptAfter: failing(UNSUPPORTED),
    steps: 8,
    end: async (job, by) => {
      expect(await whereabouts(by, job)).toEqual(dead);
      const letter = await letterOf(by, job);
      const told = letter?.attempts.filter((attempt) => attempt.failure === UNSUPPORTED.code);
      expect(told).toEqual([expect.objectContaining({ errcode: 40004, errmsg: 'invalid media type' })]);
      expect(letter).toMatchObject({ job, errcode: 40004, replays: [] });
    },
  },
  'that was stored before it was given up': {
    begin: async () => {
      const job = await admitted();
      await storeSomething(bucket.store, job);
      return job;
    },
    attempt: failing(UNSUPPORTED),
    attemptAfter: failing(UNSUPPORTED),
    steps: 6,
    end: async (job, by) => {
      expect(await whereabouts(by, job)).toEqual({ ...archived(job), letter: undefined });
    },
  },
  'that is archived after a replay': {
    begin: replayed,
    steps: 7,
    end: async (job, by) => {
      expect(await whereabouts(by, job)).toEqual({ ...archived(job), letter: 'resolved' });
      expect((await letterOf(by, job))?.archivedKey).toContain(job.mediaId);
    },
  },
  'that dies again after a replay': {
    begin: replayed,
    attempt: failing(UNSUPPORTED),
    attemptAfter: failing(UNSUPPORTED),
    steps: 8,
    end: async (job, by) => {
      expect(await whereabouts(by, job)).toEqual(dead);
      const letter = await letterOf(by, job);
      const told = letter?.attempts.filter((attempt) => attempt.failure === UNSUPPORTED.code);
      expect(told).toHaveLength(2);
      expect(letter?.replays).toEqual([expect.objectContaining({ by: 'op', reason: 'try again' })]);
    },
  },
  'that an operator puts back to work': {
    begin: async () => {
      const job = young();
      const first = worker(failing(UNSUPPORTED));
      await first.door.admit([job]);
      await first.runNext();
      return job;
    },
    act: putBack,
    steps: 4,
    end: async (job, by) => {
      // Whoever did not see it through does it again.
      if ((await by.index.get(mediaJobId(job))) !== undefined) await putBack(by, job);
      await finish(job, by);
      expect(await whereabouts(by, job)).toEqual({ ...archived(job), letter: 'resolved' });
    },
  },
  'that is taken as another ends': {
    begin: async () => {
      const both = [young(), young()] as const;
      await worker().door.admit(both);
      for (const job of both) companions.set(job, both[0] === job ? both[1] : both[0]);
      return both[0];
    },
    act: (doomed) => doomed.runChain(),
    steps: 8,
    end: async (job, by) => {
      for (const one of [job, companions.get(job) ?? job]) {
        await finish(one, by);
        expect(await whereabouts(by, one)).toEqual({ ...archived(one), letter: undefined });
      }
    },
  },
  'that another program put into the inbox': {
    begin: async () => {
      const job = young();
      await worker()
        .lanes.lane(INBOX_LANE)
        .add([{ id: 'theirs', data: job, priority: 1 }]);
      return job;
    },
    act: (doomed) => doomed.runNext({ lane: doomed.lanes.lane(INBOX_LANE) }),
    steps: 2,
    end: async (job, by) => {
      const inbox = by.lanes.lane(INBOX_LANE);
      if ((await inbox.peek('theirs')) !== undefined) {
        await loseWorker(corner.redis, inbox, 'theirs');
        await by.runNext({ lane: inbox });
      }
      expect(await inbox.counts()).toMatchObject({ waiting: 0, active: 0, delayed: 0 });
      await finish(job, by);
      expect(await whereabouts(by, job)).toEqual({ ...archived(job), letter: undefined });
    },
  },
};

describe.each(['before', 'after'] as const)('a process that dies just %s any of its steps', (moment) => {
  test.each(Object.entries(STORIES))('loses nothing and doubles nothing of a media %s', async (_name, story) => {
    let fatal = 1;
    for (; ; fatal += 1) {
      const doom = new Doom(fatal, moment);
      const job = await story.begin();
      const doomed = worker(story.attempt, doom);
      const act = story.act ?? (() => doomed.runNext());
      await act(doomed, job).catch((error: unknown) => {
        if (!doom.dead) throw error;
      });
      const other = worker(story.attemptAfter);
      if (story.act === undefined) await finish(job, other);
      await story.end(job, other);
      if (!doom.dead) break;
    }
    expect(fatal - 1).toBeGreaterThanOrEqual(story.steps);
  });
});

test('a media that is no MediaJob becomes one dead letter, whichever step its worker dies at', async () => {
  for (let fatal = 1; ; fatal += 1) {
    const doom = new Doom(fatal, 'after');
    const id = `not-a-job-${fatal}`;
    const doomed = worker(undefined, doom);
    await worker().lane.add([{ id, data: { to: 'somebody' }, priority: 1 }]);
    await doomed.runNext();
    const other = worker();
    if ((await other.lane.peek(id))?.state === 'active') {
      await loseWorker(corner.redis, other.lane, id);
      await other.runNext();
    }
    expect(await other.lane.peek(id)).toBeUndefined();
    const summary = await other.index.get(invalidJobId(id));
    expect(summary).toMatchObject({ reason: 'job-invalid', mediaId: id });
    expect(await other.deadLetters.read(summary?.key ?? '', never)).toMatchObject({
      ok: true,
      value: { job: { to: 'somebody' }, status: 'open', replays: [], detail: expect.stringContaining('mediaId: ') },
    });
    if (!doom.dead) break;
  }
});

test('a dead letter lies where its job says', async () => {
  const job = young();
  const by = worker(failing(UNSUPPORTED));
  await by.door.admit([job]);
  await by.runNext();
  expect((await by.index.get(mediaJobId(job)))?.key).toBe(deadLetterKey(job));
});
