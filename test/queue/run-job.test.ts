import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { invalidJobId } from '../../src/dead-letter/dead-letter.ts';
import { FAILURES, type Failure, type FailureCode, failure } from '../../src/failure.ts';
import { type MediaJob, mediaJobId } from '../../src/media/media-job.ts';
import type { JobEvent } from '../../src/queue/job-events.ts';
import { INBOX_LANE, LockLostError, laneOf } from '../../src/queue/lane.ts';
import { ShutdownError } from '../../src/queue/run-job.ts';
import { parseStoredJob, type StoredJob } from '../../src/queue/stored-job.ts';
import type { ArchiveStore } from '../../src/store/archive-store.ts';
import { mediaKey } from '../../src/store/object-keys.ts';
import { DAY, HOUR, iso, MINUTE, SECOND } from '../../src/time.ts';
import { type TestClock, testClock } from '../support/clock.ts';
import { APP_ID, OTHER_APP_ID, testJob } from '../support/jobs.ts';
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
  type TestWorkerOptions,
  takeOne,
  testWorker,
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

function worker(attempt?: Attempt, more: Partial<TestWorkerOptions> = {}): TestWorker {
  return testWorker({ corner, store: bucket.store, clock, ...(attempt === undefined ? {} : { attempt }), ...more });
}

/** Queues a media that has so much of its life left. */
async function admit(by: TestWorker, leftMs = 71 * HOUR, fields: Partial<MediaJob> = {}): Promise<MediaJob> {
  const job = testJob({ receivedAt: iso(clock.now() + leftMs - 72 * HOUR), ...fields });
  await by.door.admit([job]);
  return job;
}

async function storedIn(by: TestWorker, job: MediaJob): Promise<StoredJob> {
  const parsed = parseStoredJob((await by.lane.peek(mediaJobId(job)))?.data ?? '');
  if (!parsed.ok) throw new Error(parsed.mistakes.join());
  return parsed.stored;
}

const failuresIn = async (by: TestWorker, job: MediaJob): Promise<FailureCode[]> =>
  (await storedIn(by, job)).ledger.attempts.map((attempt) => attempt.failure);

function eventsOf<T extends JobEvent['type']>({ events }: TestWorker, type: T): Extract<JobEvent, { type: T }>[] {
  return events.filter((event): event is Extract<JobEvent, { type: T }> => event.type === type);
}

const types = ({ events }: TestWorker): string[] => events.map(({ type }) => type);

describe('a media that is archived', () => {
  test('leaves its lane and is known to be where it is', async () => {
    const by = worker();
    const job = await admit(by);
    await by.runNext();
    expect(await whereabouts(by, job)).toEqual({
      archivedAt: mediaKey(job, 'jpg'),
      inLane: undefined,
      listed: undefined,
      letter: undefined,
    });
    expect(eventsOf(by, 'archived')).toMatchObject([{ job, attempt: 1, marginMs: 71 * HOUR }]);
  });

  test('by another job meanwhile is not fetched again', async () => {
    let attempts = 0;
    const by = worker(async (job) => {
      attempts += 1;
      return storeSomething(bucket.store, job);
    });
    const job = await admit(by);
    await by.markers.mark(mediaJobId(job), { key: mediaKey(job, 'jpg') }, clock.now() + HOUR);
    await by.runNext();
    expect(attempts).toBe(0);
    expect(types(by)).toEqual(['duplicate']);
    expect(await by.lane.peek(mediaJobId(job))).toBeUndefined();
  });
});

describe('an attempt that fails for a passing cause', () => {
  test('goes on record with what WeChat said, and the job comes back', async () => {
    const by = worker(
      failing(failure('weixin-busy', { errcode: -1, errmsg: 'system error', rid: 'r-1', httpStatus: 200 })),
    );
    const job = await admit(by);
    const at = clock.now();
    await by.runNext();
    const { ledger } = await storedIn(by, job);
    expect(ledger.attempts).toEqual([
      {
        at: iso(at),
        durationMs: 0,
        failure: 'weixin-busy',
        errcode: -1,
        errmsg: 'system error',
        rid: 'r-1',
        httpStatus: 200,
      },
    ]);
    expect(eventsOf(by, 'retry')).toMatchObject([{ attempt: 1, failure: { code: 'weixin-busy' } }]);
    expect((await whereabouts(by, job)).listed).toBeUndefined();
  });

  test('again and again is tried until its time runs out, then is dead, with its whole history', async () => {
    const by = worker(failing(failure('store-busy'), failure('weixin-timeout')));
    const job = await admit(by);
    const deadline = Date.parse(job.receivedAt) + 72 * HOUR;
    let lastTryAt = 0;
    for (let tries = 0; (await by.lane.peek(mediaJobId(job))) !== undefined; tries += 1) {
      if (tries > 0) await makeDue(corner.redis, by.lane, mediaJobId(job));
      lastTryAt = clock.now();
      await by.runNext();
      const next = eventsOf(by, 'retry').at(-1)?.at ?? 0;
      if (next > clock.now()) clock.advance(next - clock.now());
    }
    expect(deadline - lastTryAt).toBeLessThan(10 * SECOND);
    const letter = await letterOf(by, job);
    expect(letter).toMatchObject({ reason: 'deadline-exceeded', deadline: iso(deadline), status: 'open', job });
    expect(eventsOf(by, 'retry').length).toBeGreaterThan(200);
    expect(letter?.attempts).toHaveLength(eventsOf(by, 'retry').length + 1);
    expect(letter?.attempts[0]?.failure).toBe('store-busy');
    expect(letter?.attempts.at(-1)?.failure).toBe('weixin-timeout');
    // Counted and logged as what it failed of.
    const { durationMs } = letter?.attempts.at(-1) ?? {};
    expect(eventsOf(by, 'dead')).toMatchObject([
      { reason: 'deadline-exceeded', failure: { code: 'weixin-timeout' }, durationMs },
    ]);
    expect(durationMs).toEqual(expect.any(Number));
  });

  test('by throwing is unclassified, kept by its name alone, and tried again', async () => {
    const by = worker(async () => {
      throw new TypeError('a message with a secret');
    });
    const job = await admit(by);
    await by.runNext();
    expect((await storedIn(by, job)).ledger.attempts).toMatchObject([{ failure: 'unclassified', detail: 'TypeError' }]);
    expect((await by.lane.peek(mediaJobId(job)))?.data).not.toContain('secret');
    expect(types(by)).toEqual(['fault', 'retry']);
  });
});

describe('an attempt that fails for good', () => {
  const final = (Object.keys(FAILURES) as FailureCode[]).filter(
    (code) => FAILURES[code].action === 'dead' && code !== 'invalid-media-id',
  );

  test.each(final)('with %s makes a dead letter of the media', async (code) => {
    const by = worker(failing(failure(code, { errcode: 40_000, detail: 'd' })));
    const job = await admit(by);
    await by.runNext();
    expect(await whereabouts(by, job)).toEqual({
      archivedAt: undefined,
      inLane: undefined,
      listed: code,
      letter: 'open',
    });
    expect(await letterOf(by, job)).toMatchObject({
      reason: code,
      errcode: 40_000,
      detail: 'd',
      diedAt: iso(clock.now()),
    });
  });

  test('with a media_id that WeChat does not know is asked again before it is given up', async () => {
    const by = worker(failing(failure('invalid-media-id', { errcode: 40007 })));
    const job = await admit(by);
    await by.runNext();
    expect((await whereabouts(by, job)).listed).toBeUndefined();
    await makeDue(corner.redis, by.lane, mediaJobId(job));
    clock.advance(15 * SECOND);
    await by.runNext();
    expect((await whereabouts(by, job)).listed).toBe('invalid-media-id');
  });

  test('is put off while the bucket does not take the letter, and the verdict stands', async () => {
    let down = true;
    const store: ArchiveStore = {
      ...bucket.store,
      writeJson: async (...args) =>
        down ? { ok: false, failure: failure('store-unreachable') } : bucket.store.writeJson(...args),
    };
    const by = worker(failing(failure('media-too-large'), failure('weixin-busy')), { store });
    const job = await admit(by);
    const diedAt = iso(clock.now());
    for (let look = 0; look < 3; look += 1) {
      await by.runNext();
      expect(await whereabouts(by, job)).toMatchObject({ listed: undefined, letter: undefined });
      await makeDue(corner.redis, by.lane, mediaJobId(job));
      clock.advance(MINUTE);
    }
    expect(types(by)).toEqual(['postponed', 'postponed', 'postponed']);
    down = false;
    await by.runNext();
    const letter = await letterOf(by, job);
    expect(letter).toMatchObject({ reason: 'media-too-large', diedAt });
    expect(letter?.attempts).toHaveLength(1);
  });

  test('is no dead letter when the media lies in the bucket after all', async () => {
    const by = worker(failing(failure('media-expired')));
    const job = await admit(by);
    await storeSomething(bucket.store, job);
    await by.runNext();
    expect(await whereabouts(by, job)).toMatchObject({ archivedAt: mediaKey(job, 'jpg'), listed: undefined });
    expect(types(by)).toEqual(['archived']);
  });
});

describe('a gate', () => {
  const waits = (Object.keys(FAILURES) as FailureCode[]).filter((code) => FAILURES[code].action === 'wait');

  test.each(waits)('is closed by %s, and the job waits at the head of its lane', async (code) => {
    const by = worker(failing(failure(code)));
    const job = await admit(by);
    await by.runNext();
    expect(by.gates.closed(APP_ID)?.reason).toBe(code);
    expect(types(by)).toEqual(['gate-closed', 'wait']);
    expect((await takeOne(by.lane)).id).toBe(mediaJobId(job));
  });

  const opens = (code: FailureCode): boolean =>
    !/^(weixin-(busy|unreachable|timeout|bad-gateway|unexpected-reply)|token-|cloud-call-not|hd-voice-refused|worker-lost|unclassified)/.test(
      code,
    );
  const passing = (Object.keys(FAILURES) as FailureCode[]).filter((code) => FAILURES[code].action !== 'wait');

  test.each(passing.map((code) => [code, opens(code)] as const))(
    'is opened by a probe that ends with %s: %o',
    async (code, opened) => {
      const by = worker(failing(failure(code)));
      await by.gates.close(APP_ID, 'rate-limited', failure('rate-limited'));
      const probeAt = by.gates.closed(APP_ID)?.probeAt ?? 0;
      clock.advance(probeAt - clock.now());
      await admit(by);
      await by.runNext({ onlyIfDue: true });
      const gate = by.gates.closed(APP_ID);
      expect(gate === undefined).toBe(opened);
      if (gate !== undefined) expect(gate.probeAt).toBeGreaterThan(clock.now());
    },
  );

  test('is opened by a media that is archived', async () => {
    const by = worker();
    await by.gates.close(APP_ID, 'quota-exhausted', failure('quota-exhausted'));
    clock.advance(DAY / 12);
    await admit(by);
    expect(await by.runNext({ onlyIfDue: true })).toBe(true);
    expect(types(by)).toEqual(['gate-opened', 'archived']);
    expect(await by.gates.list()).toEqual([]);
  });

  test('that is closed sends a job back untried, nothing used up', async () => {
    const by = worker();
    const job = await admit(by);
    await by.gates.close(APP_ID, 'quota-exhausted', failure('quota-exhausted'));
    expect(await by.runNext({ onlyIfDue: true })).toBe(false);
    expect((await storedIn(by, job)).ledger.attempts).toEqual([]);
    expect(by.events).toEqual([]);
  });

  test('that is closed lets a media through whose last moment has come', async () => {
    const by = worker();
    await by.gates.close(APP_ID, 'quota-exhausted', failure('quota-exhausted'));
    const job = await admit(by, 2 * MINUTE);
    expect(await by.runNext({ onlyIfDue: true })).toBe(true);
    expect((await whereabouts(by, job)).archivedAt).toBeDefined();
  });

  test('that stays closed to the end makes a dead letter that names the cause', async () => {
    const by = worker(failing(failure('quota-exhausted', { errcode: 45009, errmsg: 'reach max' })));
    await by.gates.close(APP_ID, 'quota-exhausted', failure('quota-exhausted'));
    const job = await admit(by, 2 * SECOND);
    await by.runNext({ onlyIfDue: true });
    expect(await letterOf(by, job)).toMatchObject({ reason: 'deadline-exceeded', errcode: 45009 });
    expect(by.gates.closed(APP_ID)).toBeDefined();
  });
});

describe('a worker that stops', () => {
  const aborted = (reason: Error): { attempt: Attempt; signal: AbortSignal } => {
    const abort = new AbortController();
    const attempt: Attempt = async (_job, signal) => {
      abort.abort(reason);
      signal.throwIfAborted();
      throw new Error('it was not aborted');
    };
    return { attempt, signal: abort.signal };
  };

  test('puts its job back at once, no attempt used', async () => {
    const { attempt, signal } = aborted(new ShutdownError('stop'));
    const by = worker(attempt);
    const job = await admit(by);
    await by.runNext({ signal });
    expect(by.events).toEqual([{ type: 'released', jobId: mediaJobId(job), cause: 'shutdown' }]);
    expect(await takeOne(by.lane)).toMatchObject({ id: mediaJobId(job), starts: 2, returns: 1 });
    expect((await storedIn(by, job)).ledger.attempts).toEqual([]);
  });

  test('is not taken for one that died', async () => {
    const { attempt, signal } = aborted(new ShutdownError('stop'));
    const job = await admit(worker());
    await worker(attempt).runNext({ signal });
    const by = worker(failing(failure('weixin-busy')));
    await by.runNext();
    expect(await failuresIn(by, job)).toEqual(['weixin-busy']);
  });

  test('because its lock is gone leaves the job to whoever has it', async () => {
    const { attempt, signal } = aborted(new LockLostError('gone'));
    const by = worker(attempt);
    const job = await admit(by);
    await by.runNext({ signal });
    expect(by.events).toEqual([{ type: 'released', jobId: mediaJobId(job), cause: 'lock-lost' }]);
    expect((await by.lane.peek(mediaJobId(job)))?.state).toBe('active');
  });

  test('and was too slow to notice that its lock is gone settles nothing', async () => {
    const slow = worker(async (job) => {
      await loseWorker(corner.redis, slow.lane, mediaJobId(job));
      return { ok: false, failure: failure('weixin-busy') };
    });
    const job = await admit(slow);
    await slow.runNext();
    expect(types(slow)).toEqual(['released']);
    expect((await storedIn(slow, job)).ledger.attempts).toEqual([]);
    const by = worker();
    await by.runNext();
    expect((await whereabouts(by, job)).archivedAt).toBeDefined();
  });
});

describe('the job of a worker that died', () => {
  /** So many workers take it and die. */
  async function die(by: TestWorker, job: MediaJob, times: number): Promise<void> {
    for (let death = 0; death < times; death += 1) {
      await takeOne(by.lane);
      await loseWorker(corner.redis, by.lane, mediaJobId(job));
    }
  }

  test('is archived without a second download if it lies in the bucket', async () => {
    const by = worker(failing(failure('media-expired')));
    const job = await admit(by);
    await storeSomething(bucket.store, job);
    await die(by, job, 1);
    await by.runNext();
    expect(types(by)).toEqual(['archived']);
  });

  test('is tried at once, and its history tells of the death', async () => {
    const by = worker(failing(failure('weixin-busy')));
    const job = await admit(by);
    await die(by, job, 1);
    await by.runNext();
    expect(await failuresIn(by, job)).toEqual(['worker-lost', 'weixin-busy']);
    await makeDue(corner.redis, by.lane, mediaJobId(job));
    await by.runNext();
    expect(await failuresIn(by, job)).toEqual(['worker-lost', 'weixin-busy', 'weixin-busy']);
  });

  test('that killed three workers waits once, and is then tried', async () => {
    const by = worker();
    const job = await admit(by);
    await die(by, job, 3);
    await by.runNext();
    expect(types(by)).toEqual(['retry']);
    await makeDue(corner.redis, by.lane, mediaJobId(job));
    await by.runNext();
    expect(types(by)).toEqual(['retry', 'archived']);
  });

  test('that kills every worker is dead in the end, not tried for ever', async () => {
    const by = worker();
    const job = await admit(by, 2 * SECOND);
    await die(by, job, 3);
    await by.runNext();
    expect((await whereabouts(by, job)).listed).toBe('deadline-exceeded');
    expect((await letterOf(by, job))?.attempts.at(-1)?.failure).toBe('worker-lost');
  });

  test('waits for the bucket to answer before it is fetched again', async () => {
    let fetched = 0;
    const store: ArchiveStore = {
      ...bucket.store,
      find: async () => ({ ok: false, failure: failure('store-unreachable') }),
    };
    const by = worker(
      async () => {
        fetched += 1;
        return { ok: false, failure: failure('weixin-busy') };
      },
      { store },
    );
    const job = await admit(by);
    await die(by, job, 1);
    await by.runNext();
    expect(fetched).toBe(0);
    // WeChat has not been asked: its history tells of no attempt, and it does not die of this past its deadline either.
    expect(types(by)).toEqual(['postponed']);
    expect(await failuresIn(by, job)).toEqual([]);
    const late = await admit(by, -SECOND);
    await die(by, late, 1);
    await by.runNext();
    expect(types(by)).toEqual(['postponed', 'postponed']);
    expect((await by.lane.peek(mediaJobId(late)))?.state).toBe('delayed');
    // What is left of the last minutes is not spent on one look.
    const last = await admit(by, 50 * SECOND);
    await die(by, last, 1);
    await by.runNext();
    const { dueAt } = (await by.lane.peek(mediaJobId(last))) ?? {};
    expect(dueAt).toBeLessThan(clock.now() + 40 * SECOND);
  });

  test('that killed three workers by the time it was due to be given up is asked for once more', async () => {
    const by = worker();
    const job = await admit(by, -SECOND);
    await die(by, job, 3);
    await by.runNext();
    expect(types(by)).toEqual(['archived']);
  });

  test('that kills every worker past its deadline too is dead in the end', async () => {
    const by = worker();
    const job = await admit(by, -SECOND);
    await die(by, job, 6);
    await by.runNext();
    expect((await whereabouts(by, job)).listed).toBe('deadline-exceeded');
  });
});

describe('what is no MediaJob', () => {
  /** What is kept of a payload that lay in the lane. */
  async function kept(data: string): Promise<{ readonly job: unknown; readonly text: string }> {
    const by = worker();
    await by.lane.add([{ id: 'x', data: {}, priority: 1 }]);
    await corner.redis.hset(by.lane.keyOfJob('x'), 'data', data);
    await by.runNext();
    const key = (await by.index.get(invalidJobId('x')))?.key ?? '';
    const letter = await by.deadLetters.read(key, never);
    expect(key).toMatch(new RegExp(`^dead-letters/app=${APP_ID}/dt=\\d{4}-\\d\\d-\\d\\d/invalid-[0-9a-f]{64}\\.json$`));
    if (!letter.ok || letter.value === undefined) throw new Error('there is no letter');
    expect(letter.value).toMatchObject({ reason: 'job-invalid', status: 'open', deadline: null, firstAttemptAt: null });
    return { job: letter.value.job, text: JSON.stringify(letter.value) };
  }

  test('is kept in its dead letter for whoever has to find where it came from', async () => {
    expect((await kept('{"mediaId":"m","url":"x"}')).job).toEqual({ mediaId: 'm', url: 'x' });
    expect((await kept('null')).job).toBeNull();
    expect((await kept('not json')).job).toBe('not json');
  });

  test('is kept without the openId of a sender', async () => {
    const source = { openId: 'oSENDER', messageId: '1' };
    for (const job of [{ ...testJob({ source }), typo: 1 }, { deep: [{ source }] }, { openId: 'oSENDER' }]) {
      expect((await kept(JSON.stringify(job))).text).not.toContain('oSENDER');
    }
  });

  test.each(['openid', 'OpenID', 'open_id', 'FromUserName', 'from_user_name'])(
    'is kept without an openId that is called %s',
    async (name) => {
      expect((await kept(JSON.stringify({ ...testJob(), source: { [name]: 'oSENDER' } }))).text).not.toContain(
        'oSENDER',
      );
    },
  );

  test.each([
    '{"v":1,"source":{"openId":"oSENDER',
    "{'openid': 'oSENDER'}",
    '<xml><FromUserName><![CDATA[oSENDER]]></FromUserName></xml>',
    JSON.stringify({ xml: '<FromUserName><![CDATA[oSENDER]]></FromUserName>' }),
  ])('is kept without an openId where it is a text: %s', async (data) => {
    expect((await kept(data)).text).not.toContain('oSENDER');
  });

  test.each([33, 2_000, 10_000, 1_000_000])('is kept as a text when it is nested %i deep', async (depth) => {
    const { job, text } = await kept(`${'['.repeat(depth)}{"openId":"oSENDER"}${']'.repeat(depth)}`);
    expect(job).toMatch(/^"?\[{33}/);
    expect(text).not.toContain('oSENDER');
    expect(text.length).toBeLessThan(10_000);
  });

  test('is kept up to a length that nobody minds', async () => {
    const { text } = await kept(JSON.stringify({ blob: 'x'.repeat(1_000_000) }));
    expect(text.length).toBeLessThan(10_000);
  });

  test('under any id lies below the dead letters, one letter an id', async () => {
    const by = worker();
    const ids = ['../../media/app=x', 'a/b', '媒体', 'x'.repeat(2_000), '*', '"'];
    for (const id of ids) {
      await by.lane.add([{ id, data: {}, priority: 1 }]);
      await by.runNext();
    }
    const keys = await Promise.all(ids.map(async (id) => (await by.index.get(invalidJobId(id)))?.key ?? ''));
    expect(new Set(keys).size).toBe(ids.length);
    for (const key of keys)
      expect(key).toMatch(/^dead-letters\/app=wx[0-9a-f]{16}\/dt=[0-9-]{10}\/invalid-[0-9a-f]{64}\.json$/);
  });
});

describe('what another program puts into the inbox', () => {
  test('goes to the lane of its app, without the openId, and from there as any other', async () => {
    const by = worker();
    const job = testJob({ receivedAt: iso(clock.now() - HOUR), source: { openId: 'oSENDER' } });
    const inbox = by.lanes.lane(INBOX_LANE);
    await inbox.add([{ id: 'theirs', data: job, priority: 1 }]);
    await by.runNext({ lane: inbox });
    expect((await by.lane.peek(mediaJobId(job)))?.data).not.toContain('oSENDER');
    await by.runNext();
    expect((await whereabouts(by, job)).archivedAt).toBeDefined();
  });

  test('and is known already is dropped', async () => {
    const by = worker();
    const job = await admit(by);
    const inbox = by.lanes.lane(INBOX_LANE);
    await inbox.add([{ id: 'theirs', data: job, priority: 1 }]);
    await by.runNext({ lane: inbox });
    expect([await inbox.counts(), await by.lane.counts()]).toMatchObject([{ waiting: 0 }, { waiting: 1 }]);
  });

  test('with a history that it made up begins with none', async () => {
    const by = worker();
    const job = testJob({ receivedAt: iso(clock.now() - HOUR) });
    const ledger = { attempts: [], verdict: { reason: 'media-expired', diedAt: iso(clock.now()) }, replayed: true };
    const inbox = by.lanes.lane(INBOX_LANE);
    await inbox.add([{ id: 'theirs', data: { ...job, ledger }, priority: 1 }]);
    await by.runNext({ lane: inbox });
    expect((await storedIn(by, job)).ledger).toEqual({ attempts: [] });
  });

  test.each([
    [
      'comes from the future',
      (now: number) => testJob({ receivedAt: iso(now + DAY) }),
      /receivedAt: lies in the future/,
    ],
    ['is something else', () => ({ to: 'somebody' }), /mediaId: /],
  ])('and %s becomes a dead letter', async (_name, payload, detail) => {
    const by = worker();
    const inbox = by.lanes.lane(INBOX_LANE);
    await inbox.add([{ id: 'theirs', data: payload(clock.now()), priority: 1 }]);
    await by.runNext({ lane: inbox });
    const summary = await by.index.get(invalidJobId('theirs'));
    expect(summary).toMatchObject({ reason: 'job-invalid', appId: 'unknown' });
    const letter = await by.deadLetters.read(summary?.key ?? '', never);
    expect(letter).toMatchObject({ ok: true, value: { detail: expect.stringMatching(detail) } });
  });
});

test('apps do not share dead letters, markers or gates', async () => {
  const mediaId = testJob().mediaId;
  const here = worker(failing(failure('media-expired')));
  const there = worker(undefined, { appId: OTHER_APP_ID });
  const job = await admit(here, HOUR, { mediaId });
  const same = await admit(there, HOUR, { mediaId, appId: OTHER_APP_ID });
  await here.runNext();
  await there.runNext({ lane: there.lanes.lane(laneOf(OTHER_APP_ID)) });
  expect(await whereabouts(here, job)).toMatchObject({ archivedAt: undefined, listed: 'media-expired' });
  expect(await whereabouts(there, same)).toMatchObject({ archivedAt: mediaKey(same, 'jpg'), listed: undefined });
});

test('a failure keeps every fact that a reader of the letter needs', async () => {
  const facts: Failure = failure('media-type-unsupported', {
    errcode: 40004,
    errmsg: 'm',
    rid: 'r',
    httpStatus: 200,
    detail: 'd',
  });
  const by = worker(failing(facts));
  const job = await admit(by);
  await by.runNext();
  const { code, ...rest } = facts;
  expect((await letterOf(by, job))?.attempts).toEqual([
    { at: iso(clock.now()), durationMs: 0, failure: code, ...rest },
  ]);
});
