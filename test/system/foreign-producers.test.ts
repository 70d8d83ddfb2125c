import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { type JobsOptions, Queue } from 'bullmq';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { SimulatedMedia } from '../../src/demo/weixin/simulated-media.ts';
import type { WorkerProcess } from '../../src/demo/worker-process.ts';
import { mediaJobId, parseMediaJob } from '../../src/media/media-job.ts';
import { mediaJobJsonSchema } from '../../src/media/media-job-schema.ts';
import { APP_ID } from '../support/jobs.ts';
import {
  dumpRedis,
  jobOf,
  lettersOf,
  logLines,
  notArchived,
  openJobs,
  openStack,
  type Stack,
  untilIdle,
} from '../support/stack.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 120_000 });

// What docs/job-contract.md says, with the words of a program that knows nothing but BullMQ.

let parts: AsyncDisposableStack;
let stack: Stack;
let queue: Queue;

beforeEach(async () => {
  parts = new AsyncDisposableStack();
  stack = parts.use(await openStack({ ownRedis: true }));
  queue = new Queue('media', {
    connection: { host: '127.0.0.1', port: stack.redisServer().port },
    prefix: '{weixin-media}',
  });
  parts.defer(() => queue.close());
});

afterEach(() => parts.disposeAsync());

async function startWorker(): Promise<WorkerProcess> {
  const worker = stack.worker();
  await worker.said('worker started');
  return worker;
}

/** How often each was asked for, by the word of the simulator. */
const downloads = (media: readonly SimulatedMedia[]): (number | undefined)[] =>
  media.map(({ mediaId }) => stack.simulator.counts.media.get(mediaId));

const OPTIONS: readonly JobsOptions[] = [
  {},
  { priority: 1 },
  { priority: 2_000_000 },
  { attempts: 5, backoff: { type: 'exponential', delay: 1_000 } },
  { removeOnComplete: false, removeOnFail: false },
  { delay: 300 },
  { lifo: true },
  { jobId: 'an-id-of-its-own' },
  { keepLogs: 3, stackTraceLimit: 1, sizeLimit: 100_000 },
];

describe('a job of another BullMQ client', () => {
  test('is archived whatever its options and its name are, and leaves nothing behind', async () => {
    const media = stack.addMedia(2 * OPTIONS.length);
    const add = async (of: readonly SimulatedMedia[], name: string): Promise<void> => {
      for (const [index, options] of OPTIONS.entries()) {
        const one = of[index];
        if (one !== undefined) await queue.add(name, jobOf(one), options);
      }
    };
    await add(media.slice(0, OPTIONS.length), 'archive');
    await startWorker();
    await untilIdle(stack);
    // Under the same id as before, of which nothing is left.
    await add(media.slice(OPTIONS.length), 'any name');
    await untilIdle(stack);
    expect(await notArchived(stack, media)).toEqual([]);
    expect(await lettersOf(stack)).toEqual([]);
    expect(await queue.getJobCounts()).toMatchObject({ completed: 0, failed: 0, waiting: 0, active: 0, delayed: 0 });
    const left = await stack.redis.keys('?weixin-media?:media:*');
    const ofQueue = ['events', 'id', 'marker', 'meta', 'pc', 'stalled-check'].map(
      (name) => `{weixin-media}:media:${name}`,
    );
    expect(left.filter((key) => !ofQueue.includes(key))).toEqual([]);
  });

  test('that comes again, under any id and through any door, is archived once', async () => {
    const media = stack.addMedia(3);
    for (const one of media) await queue.addBulk([1, 2].map(() => ({ name: 'archive', data: jobOf(one) })));
    await startWorker();
    await stack.queue.door.admit(media.map(jobOf));
    await untilIdle(stack);
    for (const one of media) await queue.add('archive', jobOf(one), { jobId: 'again' });
    await untilIdle(stack);
    expect(await notArchived(stack, media)).toEqual([]);
    expect(downloads(media)).toEqual([1, 1, 1]);
  });

  test('that is no MediaJob becomes a dead letter with its mistakes, and the corrected one is archived', async () => {
    const [one] = stack.addMedia(1);
    if (one === undefined) throw new Error('no media');
    const job = { ...jobOf(one), source: { openId: 'oPERSON' } };
    const wrong = [{ ...job, v: 2 }, { ...job, receivedAt: '2999-01-01T00:00:00Z' }, 'a text', [job], null];
    for (const data of wrong) await queue.add('archive', data);
    const worker = await startWorker();
    await untilIdle(stack);
    const letters = await lettersOf(stack);
    expect(letters.map(({ reason, appId, deadline }) => ({ reason, appId, deadline }))).toEqual(
      wrong.map(() => ({ reason: 'job-invalid', appId: 'unknown', deadline: null })),
    );
    const details = letters.map(({ detail = '' }) => detail.split(':')[0] ?? '').toSorted();
    expect(details).toEqual(['job', 'job', 'job', 'receivedAt', 'v']);

    await queue.add('archive', job);
    await untilIdle(stack);
    expect(await notArchived(stack, [one])).toEqual([]);
    expect(JSON.stringify(await lettersOf(stack)) + (await dumpRedis(stack.redis)) + worker.log()).not.toContain(
      'oPERSON',
    );
  });

  test('whose id is that of its media does not stand in the way of the corrected one with its dead letter', async () => {
    const [one] = stack.addMedia(1);
    if (one === undefined) throw new Error('no media');
    const job = jobOf(one);
    const jobId = mediaJobId(job);
    await queue.add('archive', { ...job, v: 2 }, { jobId });
    await startWorker();
    await untilIdle(stack);
    await queue.add('archive', job, { jobId });
    await untilIdle(stack);
    expect((await lettersOf(stack)).map(({ reason, status }) => [reason, status])).toEqual([['job-invalid', 'open']]);
    expect(await notArchived(stack, [one])).toEqual([]);
  });

  test('of an app that no worker knows waits for one that does, and keeps no other waiting', async () => {
    const [one] = stack.addMedia(1);
    if (one === undefined) throw new Error('no media');
    const stranger = { ...jobOf(one), appId: `${APP_ID.slice(0, -1)}0` };
    await queue.add('archive', stranger);
    await queue.add('archive', jobOf(one));
    const worker = await startWorker();
    await untilIdle(stack);
    expect(await notArchived(stack, [one])).toEqual([]);
    expect(logLines(worker, 'dead"')).toEqual([]);
    expect(await stack.queue.lanes.lane(`media-${stranger.appId}`).counts()).toMatchObject({ waiting: 1 });
    expect(await openJobs(stack)).toBe(0);
  });
});

describe('docs/job-contract.md', () => {
  let page: string;

  beforeEach(async () => {
    page = await readFile(new URL('../../docs/job-contract.md', import.meta.url), 'utf8');
  });

  test('has every field of a job, and says which are required', () => {
    const rows = [...page.matchAll(/^\| `(\w+)` \| (required|) ?\|/gm)].map(([, name = '', required]) => [
      name,
      required,
    ]);
    const { properties, required } = mediaJobJsonSchema() as { properties: object; required: string[] };
    const expected = Object.keys(properties).map((name) => [name, required.includes(name) ? 'required' : '']);
    expect(rows.toSorted()).toEqual(expected.toSorted());
  });

  test('shows requests with jobs that are taken', () => {
    const bodies = [...page.matchAll(/-d '(.*)'$/gm)].map(([, json = '']) => JSON.parse(json) as { items?: unknown[] });
    expect(bodies.map(({ items }) => items?.length)).toEqual([undefined, 2]);
    const jobs = bodies.flatMap((body): unknown[] => body.items ?? [body]);
    for (const job of jobs) expect(parseMediaJob(job, Number.POSITIVE_INFINITY)).toEqual({ ok: true, job });
  });

  test('shows for each language the queue, its prefix, and a job', () => {
    const samples = [...page.matchAll(/^```(js|python|php|elixir|rust|csharp)\n([\s\S]*?)^```/gm)];
    expect(samples.map(([, language]) => language)).toEqual(['js', 'python', 'php', 'elixir', 'rust', 'csharp']);
    for (const [, language, code = ''] of samples) {
      const words = ['"media"', '"archive"', '"{weixin-media}"', 'receivedAt', '"6089239057186927631"'];
      for (const word of words) expect(code.replaceAll("'", '"'), language).toContain(word);
      // The marks of those that would be refused, or ignored by whoever expects them to count.
      expect(code, language).not.toMatch(/jobId|job_id|priority|attempts/);
    }
  });

  test('shows a Node program that queues what is archived', async () => {
    const [one] = stack.addMedia(1);
    if (one === undefined) throw new Error('no media');
    const [, code = ''] = /^```js\n([\s\S]*?)^```/m.exec(page) ?? [];
    const program = code.replace('6379', String(stack.redisServer().port)).replace('MEDIA_ID', one.mediaId);
    const cwd = fileURLToPath(new URL('../..', import.meta.url));
    await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', program], { cwd, env: {} });
    await startWorker();
    await untilIdle(stack);
    const signal = AbortSignal.timeout(60_000);
    const [key = ''] = await stack.queue.markers.find([`${APP_ID}-${one.mediaId}`]);
    expect(await stack.opened.store.digest(key, signal)).toMatchObject({ value: { sha256: one.bytes.sha256 } });
  });
});
