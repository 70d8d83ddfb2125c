import { DeleteObjectCommand } from '@aws-sdk/client-s3';
import { afterAll, beforeAll, expect, test } from 'vitest';
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
  expect(text.stdout.split('\n')).toContain('state: waiting');
});

test('a media that runs or is delayed says so, with what has failed', async () => {
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
    expect(await shown(job.mediaId)).toMatchObject({ state: 'running' });
    const attempts = [{ at: iso(Date.now()), durationMs: 7, failure: 'weixin-busy', errcode: -1 }];
    await lane.delay(taken, { ...job, ledger: { attempts } }, Date.now() + HOUR);
    expect(await shown(job.mediaId)).toMatchObject({ state: 'delayed', attempts });
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

test('a media that died is dead, from the bucket or from the list alone; once settled it says how', async () => {
  const job = recentJob();
  const letter = {
    v: 1 as const,
    appId: APP_ID,
    mediaId: job.mediaId,
    job,
    reason: 'media-expired' as const,
    firstAttemptAt: null,
    diedAt: iso(Date.now()),
    deadline: null,
    attempts: [],
    status: 'open' as const,
    replays: [],
  };
  await stack.opened.deadLetters.bury(mediaJobId(job), deadLetterKey(job), letter, never);
  const [whole, bare] = await Promise.all([shown(job.mediaId), shown(job.mediaId, NO_BUCKET)]);
  expect(whole).toEqual({ state: 'dead', ...letter });
  expect(bare).toMatchObject({ state: 'dead', reason: 'media-expired', attempts: 0 });

  await stack.opened.deadLetters.discard(mediaJobId(job), deadLetterKey(job), letter, { by: 'x', reason: 'y' }, never);
  expect(await shown(job.mediaId)).toMatchObject({ state: 'discarded' });
  await stack.opened.deadLetters.resolve(mediaJobId(job), deadLetterKey(job), 'media/x.jpg', never);
  expect(await shown(job.mediaId)).toMatchObject({ state: 'archived', archivedKey: 'media/x.jpg' });
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
