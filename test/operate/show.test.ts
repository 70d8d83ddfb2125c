import { DeleteObjectCommand } from '@aws-sdk/client-s3';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { DeadLetter } from '../../src/dead-letter/dead-letter.ts';
import { freePort } from '../../src/demo/redis-server.ts';
import type { MediaJob } from '../../src/media/media-job.ts';
import { mediaJobId } from '../../src/media/media-job.ts';
import { laneOf } from '../../src/queue/lane.ts';
import { deadLetterKey, mediaKey } from '../../src/store/object-keys.ts';
import { DAY, HOUR, iso } from '../../src/time.ts';
import { COMPILE_CACHE } from '../support/compile-cache.ts';
import { APP_ID, testJob } from '../support/jobs.ts';
import { type CommandResult, type Environment, openStack, type Stack } from '../support/stack.ts';

const never = new AbortController().signal;
const NO_BUCKET = { ARCHIVE_BUCKET: '' };

let stack: Stack;

beforeAll(async () => {
  stack = await openStack({ env: COMPILE_CACHE });
});

afterAll(() => stack[Symbol.asyncDispose]());

function recentJob(): MediaJob {
  return testJob({ receivedAt: iso(Date.now() - HOUR) });
}

function show(mediaId: string, env: Environment = {}): Promise<CommandResult> {
  return stack.command(['show', '--json', APP_ID, '--', mediaId], { env });
}

async function shown(mediaId: string, env: Environment = {}): Promise<Record<string, unknown>> {
  const result = await show(mediaId, env);
  expect(result).toMatchObject({ code: 0, stderr: '' });
  const [facts, ...more] = result.rows();
  expect(more).toEqual([]);
  return facts ?? {};
}

test('a media that waits has its deadline and history', async () => {
  const job = recentJob();
  await stack.queue.door.admit([job]);
  expect(await shown(job.mediaId)).toEqual({
    appId: APP_ID,
    mediaId: job.mediaId,
    state: 'waiting',
    receivedAt: job.receivedAt,
    deadline: iso(Date.parse(job.receivedAt) + 3 * DAY),
    replayed: false,
    attempts: [],
  });
  const text = await stack.command(['show', APP_ID, '--', job.mediaId]);
  expect(text.stdout.split('\n')).toEqual([
    `${APP_ID} ${job.mediaId}`,
    'state     waiting',
    expect.stringMatching(/^deadline {2}\S+Z \(2 d 2\d h left\)$/),
    `received  ${job.receivedAt.replace(/\.\d+/, '')}`,
    'kind      image',
    '',
    'no failed attempt',
    '',
  ]);
});

test('a media that is active or delayed says so, with what has failed', async () => {
  const job = recentJob();
  await stack.queue.door.admit([job]);
  const lane = stack.queue.lanes.lane(laneOf(APP_ID));
  const token = 'a-worker';
  for (;;) {
    const { job: taken } = await lane.take(token);
    if (taken === undefined) throw new Error('the job was not in its lane');
    if (taken.id !== mediaJobId(job)) {
      await lane.complete(taken);
      continue;
    }
    expect(await shown(job.mediaId)).toMatchObject({ state: 'active' });
    const attempts = [
      { at: iso(Date.now() - HOUR), durationMs: 7, failure: 'weixin-timeout' },
      {
        at: iso(Date.now()),
        durationMs: 1_260,
        failure: 'weixin-busy',
        errcode: -1,
        errmsg: 'system error',
        rid: 'r-1',
      },
    ];
    const nextTryAt = iso(Date.now() + HOUR);
    await lane.delay(taken, { ...job, ledger: { attempts } }, Date.parse(nextTryAt));
    await stack.queue.gates.close(APP_ID, 'ip-not-allowed', {
      code: 'ip-not-allowed',
      errcode: 40164,
      errmsg: '1.2.3.4',
    });
    const found = await shown(job.mediaId);
    expect(found).toMatchObject({ state: 'delayed', attempts, nextTryAt, gate: { reason: 'ip-not-allowed' } });
    const { stdout } = await stack.command(['show', APP_ID, '--', job.mediaId]);
    await stack.queue.gates.open(APP_ID);
    expect(stdout).toMatch(/^state +delayed, next try \S+Z \(in (1 h|59 min.*)\)$/m);
    expect(stdout).toMatch(/^gate +closed for \d s: ip-not-allowed\n +The address that WeChat saw/m);
    expect(stdout).toMatch(/^at +took +failure +errcode +rid$/m);
    expect(stdout).toMatch(/^\S+Z +7 ms +weixin-timeout +- +-$/m);
    expect(stdout).toMatch(/^\S+Z +1\.3 s +weixin-busy +-1 +r-1$/m);
    expect(stdout).toContain('the last said: system error');
    return;
  }
});

test('a media that is archived has its key and what the bucket says of it; one that is missing there says so', async () => {
  const job = recentJob();
  const key = mediaKey(job, 'jpg');
  const body = Buffer.from('bytes');
  const digest = { sizeBytes: 5, sha256: '277089d91c0bdf4f2e6862ba7e4a07605119431f5d13f726dd352b06f1b206a9' };
  const metadata = { 'archived-at': iso(Date.now()), 'media-id': job.mediaId };
  const written = await stack.opened.store.write({ key, body, digest, contentType: 'image/jpeg', metadata }, never);
  expect(written.ok).toBe(true);
  await stack.queue.markers.mark(mediaJobId(job), { key }, Date.now());

  const [whole, bare] = await Promise.all([shown(job.mediaId), shown(job.mediaId, NO_BUCKET)]);
  const archived = { appId: APP_ID, mediaId: job.mediaId, state: 'archived', key };
  expect(whole).toEqual({ ...archived, sizeBytes: 5, contentType: 'image/jpeg', metadata });
  expect(bare).toEqual(archived);

  await stack.s3Client.send(new DeleteObjectCommand({ Bucket: stack.s3.bucket, Key: key }));
  expect(await shown(job.mediaId)).toEqual({ ...archived, missing: true });
});

function letterOf(job: MediaJob): DeadLetter {
  return {
    v: 1,
    appId: APP_ID,
    mediaId: job.mediaId,
    job,
    reason: 'media-expired',
    firstAttemptAt: null,
    diedAt: iso(Date.now()),
    deadline: iso(Date.now() + DAY),
    attempts: [],
    status: 'open',
    replays: [],
  };
}

async function bury(job: MediaJob): Promise<DeadLetter> {
  const letter = letterOf(job);
  await stack.opened.deadLetters.bury(mediaJobId(job), deadLetterKey(job), letter, never);
  return letter;
}

test('a media that died is dead, from the bucket or from the list alone; once settled it says how', async () => {
  const job = recentJob();
  const letter = await bury(job);
  const [whole, bare] = await Promise.all([shown(job.mediaId), shown(job.mediaId, NO_BUCKET)]);
  expect(whole).toEqual({ state: 'dead', ...letter });
  expect(bare).toMatchObject({ state: 'dead', reason: 'media-expired', attempts: 0 });

  await stack.opened.deadLetters.discard(mediaJobId(job), deadLetterKey(job), letter, { by: 'x', reason: 'y' }, never);
  expect(await shown(job.mediaId)).toMatchObject({ state: 'discarded' });
  expect(await shown(job.mediaId, NO_BUCKET)).toEqual({ appId: APP_ID, mediaId: job.mediaId, state: 'discarded' });
  const { stdout } = await stack.command(['show', APP_ID, '--', job.mediaId]);
  expect(stdout).toMatch(/^discarded +\S+Z by x: y$/m);
  await stack.opened.deadLetters.resolve(mediaJobId(job), deadLetterKey(job), 'media/x.jpg', never);
  expect(await shown(job.mediaId)).toMatchObject({ state: 'archived', archivedKey: 'media/x.jpg' });
});

describe('while the store is away', () => {
  const away = async (): Promise<Environment> => ({ AWS_ENDPOINT_URL_S3: `http://127.0.0.1:${await freePort()}` });
  const unasked = "the bucket can't be asked: store-unreachable (No answer from the S3 store.";

  test('what the queue knows is told, and that the bucket can not be asked', async () => {
    const [dead, discarded, archived, waiting] = [recentJob(), recentJob(), recentJob(), recentJob()];
    await bury(dead);
    const note = { by: 'x', reason: 'y' };
    const letter = await bury(discarded);
    await stack.opened.deadLetters.discard(mediaJobId(discarded), deadLetterKey(discarded), letter, note, never);
    await stack.queue.markers.mark(mediaJobId(archived), { key: mediaKey(archived, 'jpg') }, Date.now());
    await stack.queue.door.admit([waiting]);
    const env = await away();
    const [ofDead, ofDiscarded, ofArchived] = await Promise.all(
      [dead, discarded, archived].map(({ mediaId }) => show(mediaId, env)),
    );
    for (const result of [ofDead, ofDiscarded, ofArchived])
      expect(result).toMatchObject({ code: 0, stderr: expect.stringContaining(unasked) });
    expect(ofDead?.rows()).toMatchObject([{ state: 'dead', reason: 'media-expired', key: deadLetterKey(dead) }]);
    expect(ofDiscarded?.rows()).toMatchObject([{ state: 'discarded' }]);
    expect(ofArchived?.rows()).toMatchObject([{ state: 'archived', key: mediaKey(archived, 'jpg') }]);
    expect(await shown(waiting.mediaId, env)).toMatchObject({ state: 'waiting' });
    const { stdout, stderr } = await stack.command(['show', APP_ID, '--', dead.mediaId], { env });
    expect(stdout).toMatch(/^state +dead\n/m);
    expect(stdout).toContain('Ask the sender again.');
    expect(stderr).toContain(unasked);
  });

  test('of what the queue does not know nothing is claimed', async () => {
    const result = await show('unknown', await away());
    expect(result).toMatchObject({ code: 1, stdout: '' });
    expect(result.stderr).toMatch(/^store-unreachable/);
  });
});

test('a variant is found under the media_id, and each is told for itself', async () => {
  const voice = recentJob();
  const hd: MediaJob = { ...voice, variant: 'hd-voice' };
  await bury(hd);
  expect(await shown(voice.mediaId)).toMatchObject({ state: 'dead', job: { variant: 'hd-voice' } });
  await stack.queue.door.admit([voice]);
  const both = await show(voice.mediaId);
  expect(both.rows()).toMatchObject([
    { state: 'waiting', mediaId: voice.mediaId },
    { state: 'dead', mediaId: voice.mediaId, job: { variant: 'hd-voice' } },
  ]);
  expect(await shown(`${voice.mediaId}.hd-voice`, NO_BUCKET)).toMatchObject({ state: 'dead', variant: 'hd-voice' });
  const { stdout } = await stack.command(['show', APP_ID, '--', voice.mediaId]);
  expect(stdout).toContain(`\n\n${APP_ID} ${voice.mediaId} hd-voice\nstate `);
});

test('what nobody knows fails, and says where it has looked', async () => {
  const [everywhere, queueOnly, elsewhere] = await Promise.all([
    show('unknown'),
    show('unknown', NO_BUCKET),
    show('unknown', { ARCHIVE_BUCKET: 'no-such-bucket' }),
  ]);
  for (const { code, stdout, stderr } of [everywhere, queueOnly, elsewhere]) {
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).not.toContain('    at ');
  }
  expect(everywhere.stderr).toBe(`nothing is known of ${APP_ID} unknown\n`);
  expect(queueOnly.stderr).toContain('with ARCHIVE_BUCKET set, the bucket is asked too');
  expect(elsewhere.stderr).toContain('ARCHIVE_BUCKET does not exist');
});

test.each(['a:b', 'wx1', ''])('%j is no app: wrong usage', async (appId) => {
  const { code, stdout, stderr } = await stack.command(['show', '--json', appId, 'abc']);
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  expect(stderr).toContain('is no appId');
});

test.each(['bad/id!', 'x y', 'abc.hd-video', '.hd-voice'])('%j is no media: wrong usage', async (mediaId) => {
  const { code, stdout, stderr } = await show(mediaId);
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  expect(stderr).toContain('is no media_id');
});
