import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import type { Certificate } from '../../src/catalog/erase-certificate.ts';
import { mediaIdOf } from '../../src/catalog/erase-wanted.ts';
import type { TableName } from '../../src/catalog/table.ts';
import { cliPath } from '../../src/demo/worker-process.ts';
import { laneOf } from '../../src/queue/lane.ts';
import { catalogRows, filesOf, sorted } from '../support/catalog.ts';
import { eventually } from '../support/eventually.ts';
import { APP_ID } from '../support/jobs.ts';
import { jobsOf, leaveTraces, needlesOf, OPERATOR_KEY, type Person, type Traced } from '../support/person.ts';
import {
  type CommandResult,
  dumpRedis,
  jobOf,
  keysBelow,
  logLines,
  openStack,
  type Stack,
  untilIdle,
} from '../support/stack.ts';
import { bucketState, bucketTexts, traces } from '../support/traces.ts';

const HMAC = { ARCHIVE_OPEN_ID: 'hmac', ARCHIVE_OPEN_ID_KEY: OPERATOR_KEY };
const never = new AbortController().signal;
/** Without compression a file of Redis shows what it holds. */
const REDIS = { ownRedis: true, redisArguments: ['--rdbcompression', 'no', '--save', '3600 1'] };

/** What is to be found of somebody, wherever it is. */
async function whatIsThereOf(stack: Stack, { media }: Person): Promise<Record<string, unknown>> {
  const ids = new Set(media.map(({ mediaId }) => mediaId));
  const keys = (await keysBelow(stack, '')).filter((key) => ids.has(mediaIdOf(key) ?? ''));
  const tables = ['accepted', 'dead-letters', 'media', 'derived'] as const satisfies readonly TableName[];
  const rows: Record<string, unknown> = {};
  for (const name of tables)
    rows[name] = sorted((await catalogRows(stack, name)).filter((row) => ids.has(String(row['media_id']))));
  return { keys, ...rows };
}

/** The fields of a hash come in any order. */
async function wholeState(stack: Stack): Promise<string> {
  const all = [...(await bucketState(stack)), ...(await dumpRedis(stack.redis)).split('\n').toSorted()];
  return createHash('sha256').update(all.join('\n')).digest('hex');
}

async function manifestLines(stack: Stack): Promise<string[]> {
  const lines: string[] = [];
  for (const key of (await keysBelow(stack, 'manifests/')).filter((one) => one.endsWith('.gz'))) {
    const bytes = await filesOf(stack).getBytes(key, 1_000_000, never);
    if (bytes.ok && bytes.value !== undefined) lines.push(...gunzipSync(bytes.value).toString().split('\n'));
  }
  // Days that are over have heads, and lists of nothing.
  return lines.filter((line) => line !== '');
}

function listHash(lines: readonly string[]): string {
  const hashes = lines.map((line) => {
    const { erased } = JSON.parse(line) as { erased?: string };
    return `${erased ?? createHash('sha256').update(line).digest('hex')}\n`;
  });
  return createHash('sha256').update(hashes.join('')).digest('hex');
}

async function expectGone(stack: Stack, { victim, lines }: Traced): Promise<void> {
  expect(await traces(stack, needlesOf(victim))).toEqual([]);
  const after = await manifestLines(stack);
  expect(listHash(after)).toBe(listHash(lines));
  expect(after).toHaveLength(lines.length);
}

test('an erased person is found nowhere, and the other as before', async () => {
  await using stack = await openStack({ ...REDIS, env: HMAC });
  const traced = await leaveTraces(stack);
  const { victim, other } = traced;
  const before = await traces(stack, needlesOf(victim));
  const places = [
    'Redis:',
    'file',
    'media/',
    'derived/',
    'annotations/',
    'dead-letters/',
    'catalog/media',
    'catalog/accepted',
    'catalog/dead-letters',
    'manifests/',
    'verifications/',
  ];
  expect(places.filter((place) => !before.some((where) => where.includes(place)))).toEqual([]);
  const ofOther = await whatIsThereOf(stack, other);

  const done = await stack.command(['erase', '--app', APP_ID, '--open-id', '-', '--by', 'dpo', '--json'], {
    input: `${victim.openId}\n`,
  });
  expect(done.stderr).not.toContain(victim.openId);
  expect(done.code).toBe(0);
  await expectGone(stack, traced);
  const after = await whatIsThereOf(stack, other);
  // What waited in the outbox has come into the catalog.
  expect(after['keys']).toEqual(ofOther['keys']);
  for (const name of ['accepted', 'dead-letters', 'media', 'derived'])
    expect(after[name]).toEqual(expect.arrayContaining(ofOther[name] as unknown[]));
  expect((after['media'] as unknown[]).length).toBe(12);
}, 120_000);

test('an erasure that is killed again and again is done in the end', async () => {
  await using stack = await openStack({ ...REDIS, env: HMAC });
  const traced = await leaveTraces(stack);
  const { openId } = traced.victim;
  const who = ['--app', APP_ID, '--open-id', '-'];
  let certificate: string | undefined;
  // Each step is told to the certificate once it is done: the kill comes somewhere in the next.
  for (const step of ['begun', 'jobs', 'media', 'manifestLines', 'rows', 'hidden', 'end'] as const) {
    const more = certificate === undefined ? [] : ['--continue', certificate];
    const child = spawn(process.execPath, [cliPath(), 'erase', ...who, ...more], {
      // Whoever was killed holds the lease for as long.
      env: { ...stack.environment, WORKER_LOCK_SECONDS: '1' },
      cwd: stack.folder,
    });
    const ended = once(child, 'exit');
    child.stdin.end(openId);
    certificate = await eventually(async () => {
      const [key] = await keysBelow(stack, 'erasures/');
      if (key === undefined) return undefined;
      const document = await stack.opened.store.readJson(key, never);
      const { id, removed, runs, status } = (document.ok ? document.value : {}) as Certificate;
      const isThere = step === 'begun' || step in removed || status !== 'open';
      return isThere && (certificate === undefined || runs > 0) ? id : undefined;
    });
    child.kill('SIGKILL');
    await ended;
  }
  const done = await stack.command(['erase', ...who, '--continue', certificate ?? '', '--json'], { input: openId });
  expect(done.stderr).not.toContain('not everything');
  expect(done.rows().at(-1)).toMatchObject({ id: certificate, status: 'complete', left: {} });
  await expectGone(stack, traced);
  expect(await keysBelow(stack, 'erasures/')).toHaveLength(1);
}, 180_000);

test('a dry run tells what would go, and changes nothing', async () => {
  await using stack = await openStack({ ...REDIS, env: HMAC });
  const { victim, other } = await leaveTraces(stack);
  const before = await wholeState(stack);
  const told = await stack.command(['erase', '--app', APP_ID, '--open-id', victim.openId, '--dry-run', '--json']);
  expect(told.code).toBe(0);
  expect(await wholeState(stack)).toEqual(before);
  const rows = told.rows();
  const keys = rows.flatMap(({ wouldRemove }) => (typeof wouldRemove === 'string' ? [wouldRemove] : []));
  const ofVictim = (await whatIsThereOf(stack, victim))['keys'] as string[];
  expect(keys.toSorted()).toEqual([...ofVictim, ...keys.filter((key) => key.includes('/invalid-'))].toSorted());
  expect(ofVictim.length).toBeGreaterThan(20);
  for (const { mediaId } of other.media) expect(told.stdout).not.toContain(mediaId);
  expect(rows.at(-1)).toMatchObject({ dryRun: true, media: 16, wouldRemove: { jobs: 4, media: 12, derived: 12 } });
}, 120_000);

test('under the policy plain the openId itself is found, and by media_id anybody', async () => {
  await using stack = await openStack({ ...REDIS, env: { ARCHIVE_OPEN_ID: 'plain' } });
  const traced = await leaveTraces(stack);
  expect((await traces(stack, needlesOf(traced.victim))).join('\n')).toContain('openId in catalog/');
  const done = await stack.command(['erase', '--app', APP_ID, '--open-id', traced.victim.openId]);
  expect(done.code).toBe(0);
  expect(done.stdout).toContain('nothing is left');
  await expectGone(stack, traced);

  // The other one by media ids, as must be under the policy none.
  const none = { ARCHIVE_OPEN_ID: 'none' };
  const byId = await stack.command(['erase', '--app', APP_ID, '--open-id', traced.other.openId], { env: none });
  expect(byId.code).toBe(2);
  expect(byId.stderr).toContain('Erase by --media-id');
  const lines = traced.other.media.map(({ mediaId }) => `${mediaId}\n`).join('');
  const rest = await stack.command(['erase', '--app', APP_ID, '--file', '-', '--json'], { input: lines, env: none });
  expect(rest.rows().at(-1)).toMatchObject({ status: 'complete', selection: 'media-ids' });
  const needles = Object.fromEntries(traced.other.media.map(({ mediaId }) => [mediaId, mediaId]));
  expect(await traces(stack, needles)).toEqual([]);
  for await (const { text } of bucketTexts(stack)) expect(text).not.toMatch(/"media_id"/);
}, 180_000);

test('what was erased does not come back by a push that is repeated', async () => {
  await using stack = await openStack({ ...REDIS, env: HMAC });
  const [media] = stack.addMedia(1);
  if (media === undefined) throw new Error('no media');
  const done = await stack.command(['erase', '--app', APP_ID, '--media-id', media.mediaId]);
  expect(done.code).toBe(0);
  expect(await stack.queue.door.admit([jobOf(media)])).toMatchObject({ accepted: 0, duplicates: 1 });
  expect(await traces(stack, { media: media.mediaId })).toEqual([]);
}, 60_000);

test('a media that is being archived just now is waited for, and gone', async () => {
  await using stack = await openStack({ ...REDIS, env: HMAC });
  const openId = 'oVictimVictimVictimVictim_-01';
  const media = stack.addMedia(3, { sizeBytes: 30_000 });
  // Far longer than the command takes to begin, on the slowest machine.
  stack.simulator.arm({ endpoint: 'media', action: { type: 'drip', chunkBytes: 1_000, everyMs: 600 } });
  const worker = stack.worker();
  await stack.queue.door.admit(jobsOf({ openId, media }));
  const lane = stack.queue.lanes.lane(laneOf(APP_ID));
  await eventually(async () => ((await lane.counts()).active === 3 ? true : undefined));
  const done = await stack.command(['erase', '--app', APP_ID, '--open-id', '-', '--json'], { input: openId });
  expect(done.rows().at(-1)).toMatchObject({ status: 'complete' });
  await untilIdle(stack);
  expect(await traces(stack, needlesOf({ openId, media }))).toEqual([]);
  expect(logLines(worker, 'was erased meanwhile')).toHaveLength(3);
}, 90_000);

test('stopped by Ctrl-C it leaves no files, says how to go on, and goes on', async () => {
  await using stack = await openStack({ ...REDIS, env: HMAC });
  const openId = 'oVictimVictimVictimVictim_-01';
  const media = stack.addMedia(2, { sizeBytes: 20_000 });
  // Is waited for.
  stack.simulator.arm({ endpoint: 'media', action: { type: 'drip', chunkBytes: 1_000, everyMs: 600 } });
  stack.worker();
  await stack.queue.door.admit(jobsOf({ openId, media }));
  const lane = stack.queue.lanes.lane(laneOf(APP_ID));
  await eventually(async () => ((await lane.counts()).active === 2 ? true : undefined));
  const folder = await mkdtemp(join(stack.folder, 'catalog-'));
  const child = spawn(process.execPath, [cliPath(), 'erase', '--app', APP_ID, '--open-id', '-'], {
    env: { ...stack.environment, CATALOG_FOLDER: folder },
    cwd: stack.folder,
  });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const ended = once(child, 'close');
  child.stdin.end(openId);
  const [key = ''] = await eventually(async () => {
    const keys = await keysBelow(stack, 'erasures/');
    return keys.length > 0 ? keys : undefined;
  });
  expect(await readdir(folder)).toHaveLength(1);
  child.kill('SIGINT');
  expect(await ended).toEqual([1, null]);
  const [, id = ''] = /^erasures\/(.*)\.json$/.exec(key) ?? [];
  expect(stderr).toContain(`stopped: do it again with --continue ${id}`);
  expect(await readdir(folder)).toEqual([]);

  const args = ['erase', '--app', APP_ID, '--open-id', '-', '--continue', id, '--json'];
  const done = await stack.command(args, { input: openId });
  expect(done.rows().at(-1)).toMatchObject({ id, status: 'complete', runs: 2 });
  await untilIdle(stack);
  expect(await traces(stack, needlesOf({ openId, media }))).toEqual([]);
}, 90_000);

test('a worker that stood still during an erasure takes back what it stores afterwards', async () => {
  const env = { ...HMAC, WORKER_LOCK_SECONDS: '1' };
  await using stack = await openStack({ ...REDIS, env });
  const openId = 'oVictimVictimVictimVictim_-01';
  const media = stack.addMedia(2, { sizeBytes: 20_000 });
  stack.simulator.arm({ endpoint: 'media', action: { type: 'drip', chunkBytes: 1_000, everyMs: 400 } });
  const frozen = stack.worker();
  await stack.queue.door.admit(jobsOf({ openId, media }));
  const lane = stack.queue.lanes.lane(laneOf(APP_ID));
  await eventually(async () => ((await lane.counts()).active === 2 ? true : undefined));
  frozen.process.kill('SIGSTOP');

  const who = ['erase', '--app', APP_ID, '--open-id', '-', '--wait', '0.5', '--json'];
  const first = await stack.command(who, { input: openId });
  expect(first.code).toBe(1);
  expect(first.stderr).toContain('A worker is still at one of these media');
  const { id, left } = first.rows().at(-1) as unknown as Certificate;
  expect(left).toMatchObject({ activeJobs: 2 });

  // Another takes the jobs over, and knows.
  const awake = stack.worker();
  await untilIdle(stack);
  await eventually(() => (logLines(awake, 'was erased meanwhile').length === 2 ? true : undefined));
  const second = await stack.command([...who, '--continue', id], { input: openId });
  expect(second.rows().at(-1)).toMatchObject({ status: 'complete', runs: 2 });
  frozen.process.kill('SIGCONT');
  await eventually(() => (logLines(frozen, 'left to another worker').length === 2 ? true : undefined));
  // Stopping, it ends what it is at.
  await frozen.stop(60_000);
  expect(await traces(stack, needlesOf({ openId, media }))).toEqual([]);
}, 120_000);

test('the certificate names nobody', async () => {
  await using stack = await openStack({ ...REDIS, env: HMAC });
  const openId = 'oVictimVictimVictimVictim_-01';
  const refused = await stack.command(['erase', '--app', APP_ID, '--open-id', openId, '--note', `asked by ${openId}`]);
  expect(refused.code).toBe(2);
  expect(await keysBelow(stack, '')).toEqual([]);
  const two = await stack.command(['erase', '--app', APP_ID, '--open-id', openId, '--media-id', 'some-media']);
  expect(two.code).toBe(2);
  const unknown = await stack.command([
    'erase',
    '--app',
    APP_ID,
    '--open-id',
    openId,
    '--continue',
    crypto.randomUUID(),
  ]);
  expect(unknown.code).toBe(2);
}, 60_000);

test('who is to be erased must be plain', async () => {
  await using stack = await openStack({ env: HMAC });
  const erase = (args: readonly string[], input = ''): Promise<CommandResult> =>
    stack.command(['erase', '--app', APP_ID, '--dry-run', ...args], { input });
  // The second would be taken for erased.
  const two = await erase(['--open-id', '-'], 'oVictimVictimVictimVictim_-01\noOtherOtherOtherOtherOther_02\n');
  expect(two).toMatchObject({ code: 2, stdout: '' });
  expect(two.stderr).toContain('give one openId');
  const absent = await erase(['--file', 'absent.txt']);
  expect(absent).toMatchObject({ code: 2 });
  expect(absent.stderr).toContain("absent.txt can't be read");
  expect(await erase(['--media-id', 'a-media-of-nobody'])).toMatchObject({ code: 0, stdout: 'nothing was found\n' });
}, 60_000);
