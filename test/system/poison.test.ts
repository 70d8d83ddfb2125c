import { expect, test, vi } from 'vitest';
import { newMediaId } from '../../src/demo/weixin/weixin-simulator.ts';
import { INBOX_LANE, laneOf } from '../../src/queue/lane.ts';
import { DAY, iso, SECOND } from '../../src/time.ts';
import { eventually } from '../support/eventually.ts';
import { APP_ID, OTHER_APP_ID } from '../support/jobs.ts';
import {
  jobOf,
  keysBelow,
  lettersOf,
  linesOf,
  logLines,
  notArchived,
  openJobs,
  openStack,
  untilIdle,
} from '../support/stack.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

const received = { receivedAt: new Date().toISOString() };

/** What is no MediaJob v1, as BullMQ stores it or as somebody has overwritten it. */
const GARBAGE: readonly unknown[] = [
  null,
  0,
  'just text',
  [],
  {},
  { v: 2, appId: APP_ID, mediaId: 'a', ...received },
  { v: '1', appId: APP_ID, mediaId: 'a', ...received },
  { v: 1, appId: 'wx1', mediaId: 'a', ...received },
  { v: 1, appId: APP_ID, mediaId: '../../other', ...received },
  { v: 1, appId: APP_ID, mediaId: 'x'.repeat(257), ...received },
  { v: 1, appId: APP_ID, mediaId: 'a', receivedAt: 'yesterday' },
  { v: 1, appId: APP_ID, mediaId: 'a', receivedAt: '+275760-09-13T00:00:00.001Z' },
  { v: 1, appId: APP_ID, mediaId: 'a', ...received, ledger: 'none' },
  { v: 1, appId: APP_ID, mediaId: 'a', ...received, ledger: { attempts: [{}] } },
  { v: 1, appId: APP_ID, mediaId: 'a', ...received, ledger: { verdict: { reason: 'so-so', diedAt: '' } } },
  { v: 1, appId: APP_ID, mediaId: 'a', ...received, unknown: 'x'.repeat(1_000_000) },
];

/** Values of the hash field `data` that no client of BullMQ writes. */
const BROKEN_DATA = ['', '{', 'undefined', '\u0000\u0001', '{"v":1', '9'.repeat(5_000)];

/** BullMQ takes any text but whole numbers and colons. */
const ODD_IDS = [
  '../../etc/passwd',
  'a b\r\nc',
  '%2e%2e%2f',
  '💥',
  '\u0000',
  'x'.repeat(4_000),
  `${APP_ID}-`,
  '__proto__',
  'media*',
];

test('what is no job becomes one dead letter each, wherever it was put, and the media around it are saved', async () => {
  await using stack = await openStack();
  const { queue, redis } = stack;
  const inLane = queue.lanes.lane(laneOf(APP_ID));
  const inbox = queue.lanes.lane(INBOX_LANE);
  const media = stack.addMedia(12);
  let count = 0;
  for (const lane of [inLane, inbox]) {
    await lane.add(GARBAGE.map((data, index) => ({ id: `garbage-${index}`, data, priority: 1 })));
    await lane.add(ODD_IDS.map((id) => ({ id, data: { nothing: 'of ours' }, priority: 1 })));
    await lane.add(BROKEN_DATA.map((_, index) => ({ id: `broken-${index}`, data: {}, priority: 1 })));
    for (const [index, data] of BROKEN_DATA.entries()) await redis.hset(lane.keyOfJob(`broken-${index}`), 'data', data);
    await lane.add([{ id: 'no-data', data: {}, priority: 1 }]);
    await redis.hdel(lane.keyOfJob('no-data'), 'data');
    count += GARBAGE.length + ODD_IDS.length + BROKEN_DATA.length + 1;
  }
  await queue.door.admit(media.map(jobOf));
  const worker = stack.worker();
  await untilIdle(stack);

  expect(await notArchived(stack, media)).toEqual([]);
  expect(await keysBelow(stack, 'media/')).toHaveLength(media.length);
  const letters = await lettersOf(stack);
  expect(letters).toHaveLength(count);
  for (const { reason, status, detail, attempts } of letters)
    expect({ reason, status, attempts, explained: detail !== '' }).toEqual({
      reason: 'job-invalid',
      status: 'open',
      attempts: [],
      explained: true,
    });
  for (const key of await keysBelow(stack, 'dead-letters/'))
    expect(key).toMatch(/^dead-letters\/app=(unknown|wx[0-9a-f]{16})\/dt=\d{4}-\d\d-\d\d\/invalid-[0-9a-f]{64}\.json$/);
  expect(logLines(worker, 'given up')).toHaveLength(count);
  expect(worker.process.exitCode).toBe(null);
  expect(logLines(worker, 'unexpected fault')).toEqual([]);

  const listed = await stack.command(['dead-letters', 'list', '--json', '--reason', 'job-invalid']);
  expect(listed.code).toBe(0);
  // The ids of both lanes are the same, and the list goes by id.
  expect(linesOf(listed.stdout)).toHaveLength(count / 2);
  const replayed = await stack.command(['dead-letters', 'replay', '--json', '--reason', 'job-invalid']);
  expect(replayed.rows().at(-1)).toMatchObject({ replayed: 0, skipped: { 'not-a-job': count / 2 } });
});

test('a job whose options or numbers are broken is run or buried, and never taken for ever', async () => {
  await using stack = await openStack({ env: { WORKER_LOCK_SECONDS: '1' } });
  const { queue, redis } = stack;
  const lane = queue.lanes.lane(laneOf(APP_ID));
  const media = stack.addMedia(7);
  await queue.door.admit(media.map(jobOf));
  const broken = [
    ['opts', '{'],
    ['opts', ''],
    ['opts', 'null'],
    ['opts', '7'],
    ['timestamp', 'noon'],
    ['atm', 'x'],
    ['priority', '-1'],
  ] as const;
  for (const [index, [field, value]] of broken.entries())
    await redis.hset(lane.keyOfJob(`${APP_ID}-${media[index]?.mediaId}`), field, value);
  const worker = stack.worker();
  await untilIdle(stack);
  expect(await notArchived(stack, media)).toEqual([]);
  expect(worker.process.exitCode).toBe(null);
});

test('valid jobs that others put into the inbox, or under ids of their own, are archived once', async () => {
  await using stack = await openStack();
  const { lanes } = stack.queue;
  const media = stack.addMedia(6);
  const jobs = media.map(jobOf);
  await lanes.lane(INBOX_LANE).add(jobs.map((data, index) => ({ id: `theirs-${index}`, data, priority: 1 })));
  await lanes.lane(laneOf(APP_ID)).add(jobs.map((data, index) => ({ id: `theirs-${index}`, data, priority: 1 })));
  const worker = stack.worker();
  await untilIdle(stack);
  expect(await notArchived(stack, media)).toEqual([]);
  expect(await keysBelow(stack, '')).toHaveLength(media.length);
  expect(await lettersOf(stack)).toEqual([]);
  expect(worker.process.exitCode).toBe(null);
});

test('a job of an app that nobody serves is told at once, waits, and is a dead letter when its time is up', async () => {
  await using stack = await openStack();
  const soonGivenUp = { ageMs: 3 * DAY - 5 * SECOND };
  const jobs = [0, soonGivenUp.ageMs].map((ageMs) => ({
    v: 1 as const,
    appId: OTHER_APP_ID,
    mediaId: newMediaId(),
    receivedAt: iso(Date.now() - ageMs),
  }));
  await stack.queue.lanes.lane(INBOX_LANE).add(jobs.map((data) => ({ id: data.mediaId, data, priority: 1 })));
  const media = stack.addMedia(4);
  await stack.queue.door.admit(media.map(jobOf));
  const worker = stack.worker();
  await worker.said('app-not-configured');
  await eventually(async () => ((await lettersOf(stack)).length > 0 ? true : undefined));

  const [late] = await lettersOf(stack);
  expect(late).toMatchObject({ mediaId: jobs[1]?.mediaId, reason: 'deadline-exceeded', appId: OTHER_APP_ID });
  expect(late?.attempts.at(-1)?.failure).toBe('app-not-configured');
  // It may be on its way out of the inbox.
  const row = await eventually(async () => {
    const [found] = (await stack.command(['show', OTHER_APP_ID, jobs[0]?.mediaId ?? '', '--json'])).rows();
    return found;
  });
  expect(row).toMatchObject({ mediaId: jobs[0]?.mediaId, state: expect.stringMatching(/waiting|delayed/) });
  expect(await notArchived(stack, media)).toEqual([]);
  expect(await openJobs(stack)).toBe(0);
  expect(worker.process.exitCode).toBe(null);
});
