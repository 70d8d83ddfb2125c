import { userInfo } from 'node:os';
import { DeleteObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type DeadLetter, invalidJobId } from '../../src/dead-letter/dead-letter.ts';
import { type MediaJob, mediaJobId } from '../../src/media/media-job.ts';
import { laneOf } from '../../src/queue/lane.ts';
import { closeRedis, connectRedis } from '../../src/redis/connect.ts';
import { Secret } from '../../src/secret.ts';
import { deadLetterKey } from '../../src/store/object-keys.ts';
import { DAY, HOUR, iso, MINUTE } from '../../src/time.ts';
import { COMPILE_CACHE } from '../support/compile-cache.ts';
import { APP_ID, OTHER_APP_ID, testJob } from '../support/jobs.ts';
import { type OwnRedis, openOwnRedis } from '../support/own-redis.ts';
import { type CommandResult, type Environment, lettersOf, openStack, type Stack } from '../support/stack.ts';

const never = new AbortController().signal;

let stack: Stack;

beforeEach(async () => {
  stack = await openStack({ env: COMPILE_CACHE });
});

afterEach(() => stack[Symbol.asyncDispose]());

function recentJob(fields: Partial<MediaJob> = {}): MediaJob {
  return testJob({ receivedAt: iso(Date.now() - HOUR), ...fields });
}

/** Gives a media up, as a worker does. */
async function bury(job: MediaJob, fields: Partial<DeadLetter> = {}): Promise<DeadLetter> {
  const { appId, mediaId } = job;
  const at = iso(Date.now() - MINUTE);
  const letter: DeadLetter = {
    v: 1,
    appId,
    mediaId,
    job,
    reason: 'invalid-media-id',
    errcode: 40007,
    firstAttemptAt: at,
    diedAt: iso(Date.now()),
    deadline: null,
    attempts: [{ at, durationMs: 3, failure: 'invalid-media-id', errcode: 40007 }],
    status: 'open',
    replays: [],
    ...fields,
  };
  const failed = await stack.opened.deadLetters.bury(mediaJobId(job), deadLetterKey(job), letter, never);
  expect(failed).toBeUndefined();
  return letter;
}

function deadLetters(...args: string[]): Promise<CommandResult> {
  return stack.command(['dead-letters', ...args]);
}

async function letter(job: MediaJob): Promise<DeadLetter | undefined> {
  const read = await stack.opened.deadLetters.read(deadLetterKey(job), never);
  if (!read.ok) throw new Error(read.failure.code);
  return read.value;
}

async function put(key: string, body: string): Promise<void> {
  await stack.s3Client.send(new PutObjectCommand({ Bucket: stack.s3.bucket, Key: key, Body: body }));
}

async function remove(key: string): Promise<void> {
  await stack.s3Client.send(new DeleteObjectCommand({ Bucket: stack.s3.bucket, Key: key }));
}

async function isQueued({ appId, mediaId }: MediaJob): Promise<boolean> {
  return (await stack.queue.lanes.lane(laneOf(appId)).peek(`${appId}-${mediaId}`)) !== undefined;
}

/** The media that are listed as open. */
async function listed(): Promise<string[]> {
  const found = await Array.fromAsync(stack.queue.deadLetterIndex.list({}));
  return found.map(({ mediaId }) => mediaId);
}

describe('list', () => {
  const a = testJob({ mediaId: 'a' });
  const b = testJob({ mediaId: 'b', appId: OTHER_APP_ID });
  const c = testJob({ mediaId: 'c' });
  const diedA = iso(Date.now() - 10 * DAY);
  const diedB = iso(Date.now() - 5 * DAY);
  const diedC = iso(Date.now() - 2 * HOUR);

  beforeEach(async () => {
    await bury(a, { diedAt: diedA });
    await bury(b, { diedAt: diedB, reason: 'media-too-large', errcode: undefined });
    await bury(c, { diedAt: diedC, reason: 'deadline-exceeded', errcode: -1 });
  });

  test('has a line of JSON for each, in the order of death', async () => {
    const result = await deadLetters('list', '--json');
    expect(result).toMatchObject({ code: 0, stderr: '' });
    const rows = result.rows();
    expect(rows.map(({ mediaId }) => mediaId)).toEqual(['a', 'b', 'c']);
    expect(rows[0]).toEqual({
      jobId: `${APP_ID}-a`,
      key: deadLetterKey(a),
      appId: APP_ID,
      mediaId: 'a',
      reason: 'invalid-media-id',
      errcode: 40007,
      diedAt: diedA,
      deadline: null,
      attempts: 1,
    });
  });

  test('takes every filter, alone and with others', async () => {
    const filters: [string, string[]][] = [
      [`--app ${OTHER_APP_ID}`, ['b']],
      ['--reason deadline-exceeded', ['c']],
      ['--errcode -1', ['c']],
      [`--since ${diedB.slice(0, 10)}`, ['b', 'c']],
      ['--since 24h', ['c']],
      ['--since 90min', []],
      [`--until ${diedB}`, ['a', 'b']],
      [`--until 30min --app ${APP_ID}`, ['a', 'c']],
      [`--since 20d --until 60s --app ${APP_ID} --limit 1`, ['a']],
    ];
    const found = await Promise.all(filters.map(([filter]) => deadLetters('list', '--json', ...filter.split(' '))));
    expect(found.map((result) => result.rows().map(({ mediaId }) => mediaId))).toEqual(
      filters.map(([, media]) => media),
    );
  });

  test('is a table for people, and a sentence when it is empty', async () => {
    const [table, empty, emptyJson] = await Promise.all([
      deadLetters('list'),
      deadLetters('list', '--since', '1min'),
      deadLetters('list', '--since', '1min', '--json'),
    ]);
    const [head, ...rows] = table.stdout.trimEnd().split('\n');
    expect(head).toMatch(/^died at +app +reason +errcode +attempts +media$/);
    expect(rows.map((row) => row.split(/ +/).at(-1))).toEqual(['a', 'b', 'c']);
    expect(rows[1]).toMatch(/ media-too-large +- +1 +b$/);
    expect(empty).toMatchObject({ code: 0, stdout: 'no open dead letters\n' });
    expect(emptyJson).toMatchObject({ code: 0, stdout: '' });
  });
});

test('a variant is listed as such, and shown by its media_id', async () => {
  const job = recentJob({ mediaId: 'voice', variant: 'hd-voice' });
  const buried = await bury(job);
  await bury(recentJob({ mediaId: 'image' }));
  const [json, text, shown, replay] = await Promise.all([
    deadLetters('list', '--json'),
    deadLetters('list'),
    deadLetters('show', APP_ID, 'voice', '--json'),
    deadLetters('replay', '--all', '--dry-run'),
  ]);
  expect(json.rows().map(({ mediaId, variant }) => [mediaId, variant])).toEqual([
    ['voice', 'hd-voice'],
    ['image', undefined],
  ]);
  expect(text.stdout).toMatch(/^died at .+ variant +media\n.+ hd-voice +voice\n.+ image\n$/);
  expect(shown.rows()).toEqual([{ key: deadLetterKey(job), ...buried }]);
  expect(replay.stdout).toContain(`${APP_ID} voice hd-voice: would replay (invalid-media-id)\n`);

  await bury({ ...job, variant: undefined } as unknown as MediaJob);
  expect((await deadLetters('show', APP_ID, 'voice', '--json')).rows()).toHaveLength(2);
  await deadLetters('discard', '--all');
  expect((await deadLetters('show', APP_ID, 'voice', '--json')).rows()).toMatchObject([
    { status: 'discarded' },
    { status: 'discarded' },
  ]);
  expect((await deadLetters('show', APP_ID, 'voice.hd-voice', '--json')).rows()).toHaveLength(1);
});

test.each([
  ['list', '--limit', '0'],
  ['list', '--limit', '2.5'],
  ['list', '--limit', '-1'],
  ['list', '--errcode', 'x'],
  ['list', '--reason', 'because'],
  // An attempt may fail with it; nothing dies of it.
  ['list', '--reason', 'weixin-busy'],
  ['list', '--app', 'wrong'],
  ['list', '--since', 'yesterday'],
  ['list', '--until', '3 days'],
  ['list', 'everything'],
  ['replay', '--all', '--rate', '0'],
  ['replay', '--all', '--rate', 'fast'],
  ['show', APP_ID],
])('%s %s %s is wrong usage', async (...args) => {
  const { code, stdout, stderr } = await deadLetters(...args);
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  expect(stderr).toMatch(/^error: /);
});

describe('show', () => {
  test('prints the whole letter and where it lies, with a hint for people', async () => {
    const job = recentJob({ labels: { note: 'x' } });
    const buried = await bury(job);
    const [json, text, none] = await Promise.all([
      deadLetters('show', '--json', APP_ID, '--', job.mediaId),
      deadLetters('show', APP_ID, '--', job.mediaId),
      deadLetters('show', APP_ID, 'unknown', '--json'),
    ]);
    expect(json).toMatchObject({ code: 0, stderr: '' });
    expect(json.rows()).toEqual([{ key: deadLetterKey(job), ...buried }]);
    expect(text.stdout).not.toMatch(/[{}]/);
    expect(text.stdout).toMatch(/^reason +invalid-media-id \(40007\)\n +WeChat does not know this media_id/m);
    expect(text.stdout).toMatch(/^at +took +failure +errcode\n\S+Z +3 ms +invalid-media-id +40007$/m);
    expect(text.stdout).toContain(`letter    ${deadLetterKey(job)}\n`);
    expect(none).toMatchObject({ code: 1, stdout: '' });
    expect(none.stderr).toContain(`there is no dead letter of ${APP_ID} unknown`);
  });

  test.each([
    ['wrong', 'abc', 'is no appId'],
    ['wrong', 'x y', 'is no appId'],
    [APP_ID, 'x y', 'is no media_id'],
  ])('of %j %j is wrong usage', async (appId, mediaId, said) => {
    const { code, stdout, stderr } = await deadLetters('show', appId, mediaId);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toContain(said);
  });

  test('finds a letter that is no longer listed', async () => {
    const job = recentJob();
    await bury(job);
    await deadLetters('discard', '--all', '--note', 'devtools');
    const [shown] = (await deadLetters('show', '--json', APP_ID, '--', job.mediaId)).rows();
    expect(shown).toMatchObject({ status: 'discarded', discarded: { reason: 'devtools' } });
  });

  test('finds what was no MediaJob, by what the list calls it', async () => {
    const buried: DeadLetter = {
      ...(await bury(recentJob())),
      appId: 'unknown',
      mediaId: 'id-7',
      reason: 'job-invalid',
      job: 7,
    };
    const key = 'dead-letters/app=unknown/dt=2026-06-15/invalid-x.json';
    await stack.opened.deadLetters.bury(invalidJobId('id-7'), key, buried, never);
    const result = await deadLetters('show', 'unknown', 'id-7', '--json');
    expect(result.code).toBe(0);
    expect(result.rows()[0]).toMatchObject({ key, job: 7 });
    expect((await deadLetters('show', 'unknown', 'id-7')).stdout).toMatch(/^payload +7$/m);
    // The id in the queue may be anything.
    await stack.opened.deadLetters.bury(
      invalidJobId('x y'),
      `${key}2`,
      { ...buried, appId: APP_ID, mediaId: 'x y' },
      never,
    );
    expect((await deadLetters('show', APP_ID, 'x y', '--json')).rows()).toMatchObject([{ mediaId: 'x y' }]);
  });

  test('of a letter that somebody has broken says that there is none', async () => {
    const job = recentJob();
    await bury(job);
    await put(deadLetterKey(job), '{"half":');
    const { code, stdout, stderr } = await deadLetters('show', APP_ID, '--', job.mediaId);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).not.toContain('    at ');
  });
});

describe.each(['replay', 'discard'])('%s', (command) => {
  test('of everything must be meant', async () => {
    const job = recentJob();
    await bury(job);
    const [bare, limited, dry] = await Promise.all([
      deadLetters(command),
      deadLetters(command, '--limit', '5'),
      deadLetters(command, '--dry-run'),
    ]);
    for (const { code, stdout, stderr } of [bare, limited, dry]) {
      expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
      expect(stderr).toContain('--all');
    }
    expect(await letter(job)).toMatchObject({ status: 'open' });
  });

  test('on trial tells each, counts, and changes nothing', async () => {
    const jobs = [recentJob(), recentJob()];
    for (const job of jobs) await bury(job);
    const done = command === 'replay' ? { replayed: 2, skipped: {} } : { discarded: 2, skipped: {} };
    const [json, text] = await Promise.all([
      deadLetters(command, '--all', '--dry-run', '--json'),
      deadLetters(command, '--app', APP_ID, '--dry-run'),
    ]);
    const rows = jobs.map(({ appId, mediaId }) => ({ appId, mediaId, outcome: `would-${command}` }));
    expect(json.rows()).toEqual([...rows, { dryRun: true, matched: 2, failed: 0, ...done }]);
    const lines = jobs.map(({ appId, mediaId }) => `${appId} ${mediaId}: would ${command} (invalid-media-id)\n`);
    expect(text).toMatchObject({ code: 0, stdout: `${lines.join('')}would ${command} 2 of 2\n` });
    expect(await listed()).toHaveLength(2);
    for (const job of jobs) {
      expect(await letter(job)).toMatchObject({ status: 'open', replays: [] });
      expect(await isQueued(job)).toBe(false);
    }
  });

  test('concerns only what the filter matches', async () => {
    const [chosen, other] = [recentJob(), recentJob({ appId: OTHER_APP_ID })];
    await bury(chosen);
    await bury(other, { reason: 'media-expired', errcode: 40007 });
    const [sums] = (await deadLetters(command, '--reason', 'invalid-media-id', '--errcode', '40007', '--json')).rows();
    expect(sums).toMatchObject({ matched: 1, failed: 0 });
    expect(await listed()).toEqual([other.mediaId]);
    expect(await letter(other)).toMatchObject({ status: 'open' });
  });

  test('notes who and why, and by default the user of this machine', async () => {
    const [one, two] = [recentJob(), recentJob({ appId: OTHER_APP_ID })];
    await bury(one);
    await bury(two);
    await Promise.all([
      deadLetters(command, '--app', APP_ID, '--by', 'Li Lei', '--note', 'the list was corrected'),
      deadLetters(command, '--app', OTHER_APP_ID),
    ]);
    const records = (found: DeadLetter | undefined): object | undefined =>
      command === 'replay' ? found?.replays[0] : found?.discarded;
    expect(records(await letter(one))).toMatchObject({ by: 'Li Lei', reason: 'the list was corrected' });
    expect(records(await letter(two))).toMatchObject({ by: userInfo().username, reason: '' });
  });

  test('of a letter that cannot be written fails, tells which and keeps it listed', async () => {
    const job = recentJob();
    await bury(job);
    // Another bucket of the same name could not be told from ours; one that is gone can.
    const env = { ARCHIVE_BUCKET: 'no-such-bucket' };
    const result = await stack.command(['dead-letters', command, '--all', '--json'], { env });
    expect(result.code).toBe(1);
    expect(result.stderr).not.toContain('    at ');
    expect(await listed()).toEqual([job.mediaId]);
    expect(await isQueued(job)).toBe(false);
  });
});

test.each(['replay', 'discard'])('%s of what nothing matches says so', async (command) => {
  await bury(recentJob());
  const [text, json] = await Promise.all([
    deadLetters(command, '--all', '--app', OTHER_APP_ID),
    deadLetters(command, '--app', 'unknown', '--json'),
  ]);
  expect(text).toMatchObject({ code: 0, stdout: 'no open dead letter matches\n' });
  expect(json.rows()).toMatchObject([{ matched: 0, failed: 0 }]);
});

test.each(['replay', 'discard'])('%s that Redis refuses halfway tells what was done by then', async (command) => {
  await bury(recentJob());
  await using own = await openOwnRedis();
  const env = { REDIS_URL: own.url };
  await stack.command(['dead-letters', 'rebuild'], { env });
  const result = await stack.command(['dead-letters', command, '--all', '--json'], { env: await reading(own) });
  expect(result).toMatchObject({ code: 1, stderr: expect.stringMatching(/^Redis refuses: NOPERM/) });
  expect(result.rows()).toMatchObject([{ matched: 1, failed: 0, incomplete: true }]);
});

/** The same Redis for a user who may only read. */
async function reading(own: OwnRedis): Promise<Environment> {
  const config = { url: new Secret(own.url), prefix: '', sentinelMaster: '' };
  const redis = connectRedis(config, 'patient', 'test', () => undefined);
  await redis.call('ACL', 'SETUSER', 'reader', 'on', '>secret', '~*', '&*', '+@read', '+@connection', '+info');
  await closeRedis(redis);
  return { REDIS_URL: own.as('reader:secret') };
}

describe('replay', () => {
  test('puts media back to work with a fresh history, and a worker archives them', async () => {
    const [media] = stack.addMedia(1);
    if (media === undefined) throw new Error('no media');
    const job = recentJob({ mediaId: media.mediaId });
    await bury(job);
    const result = await deadLetters('replay', '--all', '--json', '--rate', '50');
    expect(result.rows()).toEqual([{ dryRun: false, matched: 1, replayed: 1, skipped: {}, failed: 0 }]);
    expect(await isQueued(job)).toBe(true);
    expect(await listed()).toEqual([]);
    expect(await letter(job)).toMatchObject({ status: 'replayed' });

    const worker = stack.worker();
    await worker.said('"outcome":"archived"');
    await worker.stop();
    expect(await letter(job)).toMatchObject({
      status: 'resolved',
      archivedKey: expect.stringMatching(/^media\/.+\.jpg$/),
    });
  });

  test('skips what WeChat no longer has, unless it is wanted all the same', async () => {
    const job = testJob({ receivedAt: iso(Date.now() - 4 * DAY) });
    await bury(job);
    const skipped = await deadLetters('replay', '--all', '--json');
    expect(skipped.code).toBe(0);
    expect(skipped.rows()).toEqual([
      { appId: APP_ID, mediaId: job.mediaId, outcome: 'skipped', why: 'expired' },
      { dryRun: false, matched: 1, replayed: 0, skipped: { expired: 1 }, failed: 0 },
    ]);
    expect(await listed()).toEqual([job.mediaId]);

    expect((await deadLetters('replay', '--all')).stdout).toContain('--include-expired');
    const wanted = await deadLetters('replay', '--all', '--include-expired', '--json');
    expect(wanted.rows()).toMatchObject([{ replayed: 1 }]);
    expect(await isQueued(job)).toBe(true);
  });

  test('skips what is no job, what is settled and what is gone, and says why', async () => {
    const [invalid, resolved, gone] = [recentJob(), recentJob(), recentJob()];
    await bury(invalid, { job: { v: 99 } });
    await bury(resolved);
    await put(deadLetterKey(resolved), JSON.stringify({ ...(await letter(resolved)), status: 'resolved' }));
    await bury(gone);
    await remove(deadLetterKey(gone));
    const result = await deadLetters('replay', '--all', '--json');
    expect(result.code).toBe(0);
    expect(result.rows().at(-1)).toMatchObject({ replayed: 0, skipped: { 'not-a-job': 1, 'not-open': 1, missing: 1 } });
  });
});

describe('discard', () => {
  test('does not take back that a media was archived', async () => {
    const job = recentJob();
    await bury(job);
    const archived = { ...(await letter(job)), status: 'resolved', archivedKey: 'media/x.jpg' };
    // What a crash right after the write leaves: resolved, but still listed.
    await put(deadLetterKey(job), JSON.stringify(archived));
    const result = await deadLetters('discard', '--all', '--json');
    expect(result).toMatchObject({ code: 0 });
    expect(result.rows().at(-1)).toMatchObject({ discarded: 0, skipped: { 'not-open': 1 } });
    expect(await letter(job)).toEqual(archived);
    expect(await listed()).toEqual([]);
  });

  test('is final: the media that is handed in again is known, also after Redis was lost, and nobody replays it', async () => {
    const job = recentJob();
    await bury(job, { deadline: iso(Date.now() + DAY) });
    await deadLetters('discard', '--all', '--note', 'devtools');
    const input = `${JSON.stringify(job)}\n`;
    const push = (): Promise<CommandResult> => stack.command(['enqueue', '--file', '-', '--json'], { input });
    expect((await push()).rows()).toEqual([{ accepted: 0, duplicates: 1, rejected: 0 }]);
    await stack.redis.del(stack.queue.keys.discarded(mediaJobId(job)));
    await deadLetters('rebuild');
    expect((await push()).rows()).toEqual([{ accepted: 0, duplicates: 1, rejected: 0 }]);
    expect((await deadLetters('replay', '--all', '--json')).rows()).toMatchObject([{ matched: 0 }]);
    expect(await isQueued(job)).toBe(false);
    expect(await letter(job)).toMatchObject({ status: 'discarded' });
  });

  test('of what is listed but has no letter is final too', async () => {
    const job = recentJob();
    await bury(job, { deadline: iso(Date.now() + DAY) });
    await remove(deadLetterKey(job));
    expect((await deadLetters('discard', '--all', '--json')).rows()).toMatchObject([{ discarded: 1, failed: 0 }]);
    expect(await listed()).toEqual([]);
    expect(await stack.queue.door.admit([job])).toMatchObject({ duplicates: 1 });
  });

  test('leaves the letter in the bucket', async () => {
    const job = recentJob();
    const buried = await bury(job);
    expect(await deadLetters('discard', '--all')).toMatchObject({ code: 0, stdout: 'discarded 1 of 1\n' });
    expect(await letter(job)).toMatchObject({ ...buried, status: 'discarded' });
  });
});

describe('rebuild', () => {
  test('makes a list that was lost anew, the same as before', async () => {
    const jobs = Array.from({ length: 30 }, (_, n) => recentJob(n % 2 === 0 ? {} : { appId: OTHER_APP_ID }));
    for (const job of jobs) await bury(job);
    const before = await Array.fromAsync(stack.queue.deadLetterIndex.list({}));
    await stack.redis.del(stack.queue.keys.deadByTime, stack.queue.keys.deadRecords);
    expect(await listed()).toEqual([]);

    const result = await deadLetters('rebuild', '--json');
    expect(result).toMatchObject({ code: 0, stderr: '' });
    expect(result.rows()).toEqual([{ letters: 30, open: 30, unreadable: 0, gone: 0 }]);
    const after = await Array.fromAsync(stack.queue.deadLetterIndex.list({}));
    expect(after.toSorted((x, y) => x.jobId.localeCompare(y.jobId))).toEqual(
      before.toSorted((x, y) => x.jobId.localeCompare(y.jobId)),
    );
  });

  test('takes settled letters and those that are gone off the list, and names what cannot be read', async () => {
    const [open, discarded, gone, broken] = [recentJob(), recentJob(), recentJob(), recentJob()];
    for (const job of [open, discarded, gone, broken]) await bury(job);
    await put(deadLetterKey(discarded), JSON.stringify({ ...(await letter(discarded)), status: 'discarded' }));
    await remove(deadLetterKey(gone));
    await put(deadLetterKey(broken), 'gone fishing');

    const result = await deadLetters('rebuild', '--json');
    expect(result).toMatchObject({ code: 1, stderr: '' });
    expect(result.rows()).toEqual([
      { key: deadLetterKey(broken), unreadable: true },
      { letters: 3, open: 1, unreadable: 1, gone: 1 },
    ]);
    expect((await listed()).toSorted()).toEqual([open.mediaId, broken.mediaId].toSorted());
  });

  test('lists a letter again whose replay was lost, and none whose replay waits', async () => {
    const [lost, waiting] = [recentJob(), recentJob()];
    for (const job of [lost, waiting]) await bury(job);
    await deadLetters('replay', '--all');
    await stack.queue.redis.del(stack.queue.lanes.lane(laneOf(APP_ID)).keyOfJob(mediaJobId(lost)));
    expect(await listed()).toEqual([]);
    expect((await deadLetters('rebuild', '--json')).rows()).toMatchObject([{ letters: 2, open: 1 }]);
    expect(await listed()).toEqual([lost.mediaId]);
  });

  test('of letters that nobody has does nothing', async () => {
    expect((await deadLetters('rebuild', '--json')).rows()).toEqual([{ letters: 0, open: 0, unreadable: 0, gone: 0 }]);
    expect(await lettersOf(stack)).toEqual([]);
  });
});

test('a bucket that is not there is told with what to do', async () => {
  const env = { ARCHIVE_BUCKET: 'no-such-bucket' };
  const [rebuild, show] = await Promise.all([
    stack.command(['dead-letters', 'rebuild', '--json'], { env }),
    stack.command(['dead-letters', 'show', APP_ID, 'abc', '--json'], { env }),
  ]);
  for (const { code, stdout, stderr } of [rebuild, show]) {
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toContain('ARCHIVE_BUCKET does not exist. Create it.');
    expect(stderr).not.toContain('    at ');
  }
});

test('commands that need the bucket say so where none is set', async () => {
  const commands = [['show', APP_ID, 'abc'], ['replay', '--all'], ['discard', '--all'], ['rebuild']];
  const results = await Promise.all(
    commands.map((args) => stack.command(['dead-letters', ...args], { env: { ARCHIVE_BUCKET: '' } })),
  );
  for (const { code, stdout, stderr } of results) {
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toContain('ARCHIVE_BUCKET: received nothing');
  }
});
