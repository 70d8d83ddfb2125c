import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { newMediaId } from '../../src/demo/weixin/weixin-simulator.ts';
import { laneOf } from '../../src/queue/lane.ts';
import { parseStoredJob } from '../../src/queue/stored-job.ts';
import { COMPILE_CACHE } from '../support/compile-cache.ts';
import { APP_ID, OTHER_APP_ID, testJob } from '../support/jobs.ts';
import { openOwnRedis } from '../support/own-redis.ts';
import { type CommandResult, openStack, type Stack, writeLines } from '../support/stack.ts';

let stack: Stack;

beforeAll(async () => {
  stack = await openStack({ env: COMPILE_CACHE });
});

afterAll(() => stack[Symbol.asyncDispose]());

/** The job in the queue as a worker would find it. */
async function queued(mediaId: string): Promise<object | undefined> {
  const found = await stack.queue.lanes.lane(laneOf(APP_ID)).peek(`${APP_ID}-${mediaId}`);
  if (found === undefined) return undefined;
  const parsed = parseStoredJob(found.data);
  return parsed.ok ? parsed.stored.job : undefined;
}

function expectUsage({ code, stdout, stderr }: CommandResult): void {
  expect(code).toBe(2);
  expect(stdout).toBe('');
  expect(stderr).not.toBe('');
  expect(stderr).not.toContain('    at ');
}

describe('media as arguments', () => {
  test('are queued with kind and time, and the sums told', async () => {
    const ids = [newMediaId(), newMediaId()];
    const options = ['--kind', 'voice', '--received-at', '2026-06-15T12:00:00Z', '--json'];
    const result = await stack.command(['enqueue', ...options, APP_ID, '--', ...ids]);
    expect(result).toMatchObject({ code: 0, stderr: '' });
    expect(result.rows()).toEqual([{ accepted: 2, duplicates: 0, rejected: 0 }]);
    for (const mediaId of ids) {
      const job = { v: 1, appId: APP_ID, mediaId, kind: 'voice', receivedAt: '2026-06-15T12:00:00Z' };
      expect(await queued(mediaId)).toEqual(job);
    }
  });

  test('were received now where nobody says when, and are duplicates the second time', async () => {
    const mediaId = newMediaId();
    const before = Date.now();
    const first = await stack.command(['enqueue', APP_ID, '--', mediaId]);
    expect(first).toMatchObject({ code: 0, stdout: 'accepted 1, duplicates 0, rejected 0\n', stderr: '' });
    const { receivedAt } = (await queued(mediaId)) as { receivedAt: string };
    expect(Date.parse(receivedAt)).toBeGreaterThanOrEqual(before);
    expect(Date.parse(receivedAt)).toBeLessThanOrEqual(Date.now());

    const second = await stack.command(['enqueue', APP_ID, '--', mediaId, mediaId]);
    expect(second).toMatchObject({ code: 0, stdout: 'accepted 0, duplicates 2, rejected 0\n' });
  });

  test('that begin with a dash go behind --', async () => {
    const result = await stack.command(['enqueue', '--json', APP_ID, '--', '-starts-with-a-dash']);
    expect(result.rows()).toEqual([{ accepted: 1, duplicates: 0, rejected: 0 }]);
    expect(await queued('-starts-with-a-dash')).toMatchObject({ mediaId: '-starts-with-a-dash' });
  });

  test.each([
    ['a media_id that is none', [APP_ID, 'a/b'], 'a/b', /mediaId/],
    ['an app that is not configured', [OTHER_APP_ID, 'abc'], 'abc', /not configured/],
    ['a time in the future', [APP_ID, 'abc', '--received-at', '2999-01-01T00:00:00Z'], 'abc', /future/],
  ])('%s is rejected by its name, and the command fails', async (_what, args, where, mistake) => {
    const result = await stack.command(['enqueue', ...args, '--json']);
    expect(result).toMatchObject({ code: 1, stderr: '' });
    const [rejected, sums] = result.rows();
    expect(rejected).toEqual({ rejected: where, mistakes: [expect.stringMatching(mistake)] });
    expect(sums).toEqual({ accepted: 0, duplicates: 0, rejected: 1 });
  });

  test('of which some are wrong are queued but for those', async () => {
    const mediaId = newMediaId();
    const result = await stack.command(['enqueue', APP_ID, '--', 'a b', mediaId]);
    expect(result.code).toBe(1);
    expect(result.stdout).toMatch(/^rejected a b: mediaId.*\naccepted 1, duplicates 0, rejected 1\n$/);
    expect(await queued(mediaId)).toBeDefined();
  });
});

test.each([
  ['nothing to queue', []],
  ['an app without media', [APP_ID]],
  ['media and a file', [APP_ID, 'abc', '--file', '-']],
  ['a kind for a file', ['--file', '-', '--kind', 'image']],
  ['a time for a file', ['--file', '-', '--received-at', '2026-06-15T12:00:00Z']],
  ['an app that is none', ['wx12', 'abc']],
  ['a time that is none', [APP_ID, 'abc', '--received-at', 'yesterday']],
  ['a time that is not in UTC', [APP_ID, 'abc', '--received-at', '2026-06-15 12:00']],
  ['a kind that is none', [APP_ID, 'abc', '--kind', 'gif']],
  ['an option without its value', [APP_ID, 'abc', '--kind']],
])('%s is wrong usage', async (_what, args) => {
  expectUsage(await stack.command(['enqueue', ...args]));
});

describe('a file of jobs', () => {
  test('is queued line by line; lines that are none are named by number and the others queued', async () => {
    const good = [
      testJob(),
      testJob({ labels: { note: 'a\u2028b' }, kind: 'video' }),
      testJob({ source: { messageId: '24', openId: 'oPERSON' } }),
    ];
    const lines = [good[0], 'no job', '', good[1], { ...testJob(), v: 2 }, '   ', '[1]', good[2], good[0]];
    const path = await writeLines(stack, lines as (object | string)[]);
    const result = await stack.command(['enqueue', '--file', path, '--json']);
    expect(result).toMatchObject({ code: 1, stderr: '' });
    const rows = result.rows();
    expect(rows.slice(0, -1).map(({ rejected }) => rejected)).toEqual(['line 2', 'line 5', 'line 7']);
    for (const { mistakes } of rows.slice(0, -1)) expect(mistakes).not.toEqual([]);
    expect(rows.at(-1)).toEqual({ accepted: 3, duplicates: 1, rejected: 3 });
    expect(await queued(good[1]?.mediaId ?? '')).toEqual(good[1]);
    // No key for pseudonyms is set.
    expect(await queued(good[2]?.mediaId ?? '')).toEqual({ ...good[2], source: { messageId: '24' } });
  });

  test('is told in words without --json', async () => {
    const path = await writeLines(stack, ['no job', testJob()]);
    const { code, stdout } = await stack.command(['enqueue', '--file', path]);
    expect(code).toBe(1);
    expect(stdout).toBe('rejected line 1: job: is not JSON\naccepted 1, duplicates 0, rejected 1\n');
  });

  test('comes from standard input as well, whatever ends its lines', async () => {
    const jobs = [testJob(), testJob(), testJob()];
    const texts = jobs.map((job) => JSON.stringify(job));
    const [unix, windows] = await Promise.all([
      stack.command(['enqueue', '--file', '-', '--json'], { input: texts.join('\n') }),
      stack.command(['enqueue', '--file', '-', '--json'], {
        input: `\ufeff${jobs.map((job) => JSON.stringify({ ...job, mediaId: newMediaId() })).join('\r\n')}\r\n`,
      }),
    ]);
    for (const result of [unix, windows]) {
      expect(result).toMatchObject({ code: 0, stderr: '' });
      expect(result.rows()).toEqual([{ accepted: 3, duplicates: 0, rejected: 0 }]);
    }
  });

  test('without a line queues nothing', async () => {
    const result = await stack.command(['enqueue', '--file', '-', '--json'], { input: '\n\n' });
    expect(result).toMatchObject({ code: 0 });
    expect(result.rows()).toEqual([{ accepted: 0, duplicates: 0, rejected: 0 }]);
  });

  test('longer than a batch is queued whole', async () => {
    const jobs = Array.from({ length: 1_301 }, () => testJob());
    const path = await writeLines(stack, [...jobs, 'no job', ...jobs]);
    const result = await stack.command(['enqueue', '--file', path, '--json']);
    const [rejected, sums] = result.rows();
    expect(rejected).toMatchObject({ rejected: 'line 1302' });
    expect(sums).toEqual({ accepted: 1_301, duplicates: 1_301, rejected: 1 });
  });

  test('with a line that has no end is read in bounded memory', async () => {
    const endless = Buffer.concat([
      Buffer.alloc(150 * 1024 * 1024, 'x'),
      Buffer.from(`\n${JSON.stringify(testJob())}`),
    ]);
    const result = await stack.command(['enqueue', '--file', '-', '--json'], {
      input: endless,
      nodeOptions: ['--max-old-space-size=64'],
    });
    const [rejected, sums] = result.rows();
    expect(rejected).toEqual({ rejected: 'line 1', mistakes: ['job: is longer than 65536 characters'] });
    expect(sums).toEqual({ accepted: 1, duplicates: 0, rejected: 1 });
  });

  test('that fills Redis halfway tells what was queued by then and what is wrong, and may be repeated', async () => {
    await using own = await openOwnRedis({ arguments: ['--maxmemory', '4mb'] });
    const env = { REDIS_URL: own.url };
    const path = await writeLines(stack, ['no job', ...Array.from({ length: 6_000 }, () => testJob())]);
    const [json, text] = [
      await stack.command(['enqueue', '--file', path, '--json'], { env }),
      await stack.command(['enqueue', '--file', path], { env }),
    ];
    const said = /^Redis refuses: OOM .+ \(Redis is full: raise its maxmemory\.\)\n$/;
    for (const { code, stderr } of [json, text]) {
      expect(code).toBe(1);
      expect(stderr).toMatch(said);
    }
    const sums = json.rows().at(-1);
    expect(sums).toEqual({ accepted: expect.any(Number), duplicates: 0, rejected: 1, incomplete: true });
    expect(sums?.['accepted']).toBeGreaterThan(0);
    expect(text.stdout).toMatch(
      /\naccepted 0, duplicates \d+, rejected 1, then it failed: repeating it does no harm\n$/,
    );
  });

  test.each([
    ['is not there', 'missing.ndjson'],
    ['is a folder', 'folder'],
  ])('that %s is wrong usage, and is named', async (_what, name) => {
    await mkdir(join(stack.folder, 'folder'), { recursive: true });
    const { code, stdout, stderr } = await stack.command(['enqueue', '--file', name, '--json']);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toMatch(new RegExp(`^${name} can't be read: .+\n$`));
  });

  test('that is given by a path of the working directory is found', async () => {
    await writeFile(join(stack.folder, 'jobs.ndjson'), JSON.stringify(testJob()));
    const result = await stack.command(['enqueue', '--file', 'jobs.ndjson', '--json']);
    expect(result.rows()).toEqual([{ accepted: 1, duplicates: 0, rejected: 0 }]);
  });
});

test('without an account nothing is queued', async () => {
  const env = { WEIXIN_APP_ID: '', WEIXIN_APP_SECRET: '' };
  const result = await stack.command(['enqueue', APP_ID, 'abc'], { env });
  expectUsage(result);
  expect(result.stderr).toContain('WEIXIN_ACCOUNTS_FILE');
});
