import { spawn } from 'node:child_process';
import { mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { fromParquet, sqlText } from '../../src/catalog/duck.ts';
import { headKey, headText, type ManifestHead, sha256Hex } from '../../src/catalog/manifest.ts';
import { MEDIA_TABLE } from '../../src/catalog/media-table.ts';
import { mergeSorted } from '../../src/catalog/merge-sorted.ts';
import { type VerifyProgress, type VerifyReport, writeProgress } from '../../src/catalog/verify-progress.ts';
import { cliPath } from '../../src/demo/worker-process.ts';
import { DAY, iso } from '../../src/time.ts';
import { COMPILE_CACHE } from '../support/compile-cache.ts';
import { eventually } from '../support/eventually.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { OTHER_APP_ID } from '../support/jobs.ts';
import { DT, openSealedArchive, type SealedArchive } from '../support/sealed-archive.ts';
import { type CommandResult, linesOf, runCommand } from '../support/stack.ts';

const never = new AbortController().signal;

let archive: SealedArchive;

beforeEach(async () => {
  archive = await openSealedArchive();
});

afterEach(() => archive[Symbol.asyncDispose]());

function verify(...args: string[]): Promise<CommandResult> {
  return runCommand(['verify', '--json', ...args], { env: { ...archive.environment, ...COMPILE_CACHE } });
}

/** The words, each with the key that it is said of, `*` where it was sealed. */
function told(result: CommandResult): string[] {
  return result
    .rows()
    .map(({ difference, key, sealed }) => `${difference}${sealed === true ? '*' : ''} ${key}`)
    .toSorted();
}

function sealed(head: ManifestHead | undefined): ManifestHead {
  if (head === undefined) throw new Error('nothing was sealed');
  return head;
}

async function keysBelow(prefix: string): Promise<string[]> {
  return (await Array.fromAsync(archive.files.list(prefix, never))).map(({ key }) => key);
}

async function reports(): Promise<VerifyReport[]> {
  const keys = (await keysBelow('verifications/')).filter((key) => key.includes('Z-'));
  return Promise.all(keys.map(async (key) => JSON.parse((await archive.read(key)).toString()) as VerifyReport));
}

async function changeList({ list }: ManifestHead, change: (lines: string[]) => string[]): Promise<void> {
  const lines = linesOf(gunzipSync(await archive.read(list.key)).toString());
  const bytes = gzipSync(
    change(lines)
      .map((line) => `${line}\n`)
      .join(''),
  );
  await archive.files.putBytes(list.key, bytes, 'application/gzip', never);
}

test('an archive that is as it was archived has no differences, and leaves a report', async () => {
  await archive.add(20);
  await archive.add(5, { app: OTHER_APP_ID, kind: 'voice' });
  await archive.close();
  await archive.add(5, { dt: '2026-06-16' });
  const head = sealed(await archive.close('2026-06-16'));
  // Of a day that is not over, and in no manifest.
  await archive.add(3, { dt: '2026-06-17' });
  const result = await verify('--all');
  expect(result.stdout).toBe('');
  expect(result.code).toBe(0);
  const [report] = await reports();
  expect(report).toMatchObject({
    tip: { sequence: 2, dt: '2026-06-16', sha256: sha256Hex(headText(head)) },
    objects: { listed: 33, rows: 30, sealed: 30, read: 30 },
    due: 3,
    bytesRead: 30 * 40,
    counts: {},
    differences: [],
  });
  expect(result.stderr).toContain('no differences');
  expect(result.stderr).toContain('report: verifications/');
});

test('without a word of how much it reads a sample of 100, and says so', async () => {
  await archive.add(150);
  await archive.close();
  const result = await verify();
  expect(result.code).toBe(0);
  expect(result.stderr).toContain('a sample of 100; --all reads all');
  expect((await reports()).map(({ objects }) => objects.read)).toEqual([100]);
  expect((await verify('--sample', '7', '--app', OTHER_APP_ID)).code).toBe(0);
  expect((await verify('--all', '--sample', '7')).code).toBe(2);
});

test('each thing that was changed is found and told apart', async () => {
  const keys = await archive.add(12);
  await archive.close();
  const [same = '', longer = '', gone = '', altered = '', resized = '', both = '', bare = ''] = keys;
  await archive.overwrite(same, Buffer.alloc(40, 1));
  await archive.overwrite(longer, Buffer.alloc(41, 1));
  await archive.remove(gone);
  const other = sha256Hex(Buffer.alloc(40, 2));
  await archive.alterRows(`key = '${altered}'`, `'${'0'.repeat(64)}' AS sha256`);
  await archive.alterRows(`key = '${resized}'`, '999 AS size_bytes');
  await archive.overwrite(both, Buffer.alloc(40, 2));
  await archive.alterRows(`key = '${both}'`, `'${other}' AS sha256`);
  await archive.overwrite(bare, await archive.read(bare), { 'media-id': 'another' });
  const result = await verify('--sample', '1');
  expect(result.code).toBe(1);
  const expected = [
    `sha256* ${same}`,
    `size* ${longer}`,
    `missing* ${gone}`,
    `catalog-altered* ${altered}`,
    `catalog-altered* ${resized}`,
    `sha256* ${both}`,
    `catalog-altered* ${both}`,
    `metadata* ${bare}`,
    `metadata* ${bare}`,
  ].toSorted();
  // Whatever looks wrong is read, drawn or not. What an object says of itself only reading tells.
  const isSeen = (line: string): boolean => !line.startsWith('metadata');
  expect(told(result).filter(isSeen)).toEqual(expected.filter(isSeen));
  expect(told(await verify('--all'))).toEqual(expected);
  const row = result.rows().find(({ difference }) => difference === 'sha256');
  expect(row).toMatchObject({ key: [same, both].includes(String(row?.['key'])) ? row?.['key'] : '', sealed: true });
  expect((await reports()).at(-1)?.counts).toMatchObject({ 'catalog-altered': 3, sha256: 2, missing: 1, size: 1 });
});

test('two objects that were swapped are both found', async () => {
  const [one = '', two = ''] = await archive.add(5);
  await archive.close();
  const bytes = await archive.read(one);
  await archive.overwrite(one, await archive.read(two));
  await archive.overwrite(two, bytes);
  expect(told(await verify('--sample', '1'))).toEqual([`sha256* ${one}`, `sha256* ${two}`]);
});

test('an object that was spoilt without being written anew is found by reading it', async () => {
  const [key = ''] = await archive.add(5);
  await archive.close();
  await using proxy = await startFaultProxy(archive.backend.endpoint);
  proxy.arm((request) => request.operation === 'GetObject' && request.key === key, {
    type: 'corrupt-answer',
    atByte: 3,
  });
  const result = await runCommand(['verify', '--json', '--all'], {
    env: { ...archive.environment, ...COMPILE_CACHE, AWS_ENDPOINT_URL_S3: proxy.endpoint },
  });
  expect(told(result)).toEqual([`sha256* ${key}`]);
});

test('what is new is not missed by the catalog for an hour, and then it is', async () => {
  await archive.add(3);
  await archive.close();
  const late = await archive.add(2);
  const stray = 'media/stray.jpg';
  await archive.overwrite(stray, Buffer.from('x'), {});
  const result = await verify('--all');
  expect(told(result)).toEqual([]);
  expect(result.stderr).toContain('3 have come too lately');
  await using proxy = await startFaultProxy(archive.backend.endpoint);
  proxy.arm('ListObjects', { type: 'age-answer' });
  const { rows } = await runCommand(['verify', '--json', '--all'], {
    env: { ...archive.environment, ...COMPILE_CACHE, AWS_ENDPOINT_URL_S3: proxy.endpoint },
  });
  expect(
    rows()
      .map(({ difference, key }) => `${difference} ${key}`)
      .toSorted(),
  ).toEqual([...late, stray].map((key) => `uncatalogued ${key}`).toSorted());
});

test('a list that was changed is told, line by line where the rows know better', async () => {
  const [one = '', two = ''] = await archive.add(6);
  const head = sealed(await archive.close());
  await changeList(head, (lines) =>
    lines.map((line) => (line.includes(one) ? line.replace(/[0-9a-f]{64}/, 'f'.repeat(64)) : line)),
  );
  const result = await verify('--sample', '1');
  expect(told(result)).toEqual([`manifest-altered ${head.list.key}`, `manifest-altered ${one}`]);
  expect(result.rows().find(({ key }) => key === one)).toMatchObject({ found: 'f'.repeat(64) });
  // An overwritten object is told from an altered list even then.
  await archive.overwrite(two, Buffer.alloc(40, 9));
  expect(told(await verify('--all'))).toContain(`sha256 ${two}`);
});

test('an erased object, with its row and its line, is no difference', async () => {
  const [key = ''] = await archive.add(6);
  const head = sealed(await archive.close());
  await changeList(head, (lines) =>
    lines.map((line) => (line.includes(key) ? JSON.stringify({ erased: sha256Hex(line) }) : line)),
  );
  await archive.remove(key);
  await archive.removeRows(`key = '${key}'`);
  const result = await verify('--all');
  expect(result.stderr).toContain('1 sealed lines are erased');
  expect(told(result)).toEqual([]);
  expect(result.code).toBe(0);
});

test('a row that was removed is told, sealed or not', async () => {
  const [key = ''] = await archive.add(6);
  await archive.close();
  await archive.removeRows(`key = '${key}'`);
  expect(told(await verify('--sample', '1'))).toEqual([`uncatalogued* ${key}`]);
});

test('rows that are there twice, and a file of rows that somebody has spoilt, are told', async () => {
  const keys = await archive.add(3);
  const others = await archive.add(2, { app: OTHER_APP_ID });
  await archive.close();
  const [file = '', other = ''] = await keysBelow('catalog/media/');
  const type = 'application/vnd.apache.parquet';
  await archive.files.putBytes(file.replace(/[^/]+$/, 'copy.parquet'), await archive.read(file), type, never);
  const isFirst = file.includes(`app=${OTHER_APP_ID}/`);
  const [doubled, spoilt] = isFirst ? [others, keys] : [keys, others];
  const twice = doubled.map((key) => `catalog-altered ${key}`);
  expect(told(await verify('--all'))).toEqual(twice);

  await archive.files.putBytes(other, (await archive.read(other)).subarray(0, -20), type, never);
  expect(told(await verify('--all'))).toEqual(
    [...twice, `catalog-altered ${other}`, ...spoilt.map((key) => `uncatalogued* ${key}`)].toSorted(),
  );

  const query = await runCommand(['query', 'select count(*) from media'], { env: archive.environment });
  expect(query).toMatchObject({ code: 1, stdout: '' });
  expect(query.stderr).toContain('verify names it, and catalog rebuild makes it anew');
  expect(query.stderr).not.toContain('    at ');
});

test('a file of an earlier version lacks a column that may be null, and is as it was', async () => {
  await archive.add(3);
  await archive.close();
  const [file = ''] = await keysBelow('catalog/media/');
  const [path, older] = [join(archive.folder, 'file.parquet'), join(archive.folder, 'older.parquet')];
  const without = async (column: string): Promise<void> => {
    await archive.files.getFile(file, path, never);
    const query = `SELECT * EXCLUDE (${column}) FROM ${fromParquet([path])}`;
    await archive.duck.run(`COPY (${query}) TO ${sqlText(older)} (FORMAT parquet)`, never);
    await archive.files.putFile(file, older, 'application/vnd.apache.parquet', never);
  };
  const rebuild = (): Promise<CommandResult> =>
    runCommand(['catalog', 'rebuild', '--dry-run', '--json'], { env: archive.environment });
  await without('message_id');
  expect(told(await verify('--all'))).toEqual([]);
  expect((await rebuild()).rows().at(-1)).toMatchObject({ objects: 3, added: 0, removed: 0, spoilt: 0 });
  expect(
    (await runCommand(['export', '--bagit', join(archive.folder, 'bag'), '--dt', DT], { env: archive.environment }))
      .code,
  ).toBe(0);
  const merged = await mkdtemp(join(archive.folder, 'merged-'));
  const { rows } = await mergeSorted(archive.duck, MEDIA_TABLE, [older], merged, never);
  expect(rows).toBe(3);

  await without('app_id');
  expect((await rebuild()).rows().at(-1)).toMatchObject({ spoilt: 1 });
});

test('a removed, a moved and a changed head break the chain', async () => {
  await archive.add(2);
  const heads: ManifestHead[] = [];
  for (const dt of [DT, '2026-06-16', '2026-06-17', '2026-06-18']) heads.push(sealed(await archive.close(dt)));
  const [first, second, third, last] = heads.map(headKey);
  expect((await verify()).code).toBe(0);
  const { files } = archive;
  const restore = async (head: ManifestHead | undefined): Promise<void> => {
    if (head !== undefined) await files.putBytes(headKey(head), Buffer.from(headText(head)), 'application/json', never);
  };

  await archive.remove(second ?? '');
  expect(told(await verify())).toContain(`chain-broken* ${second}`);
  await restore(heads[1]);
  expect((await verify()).code).toBe(0);

  // Its counts only.
  await files.putBytes(
    first ?? '',
    Buffer.from(headText({ ...sealed(heads[0]), unlisted: 3 })),
    'application/json',
    never,
  );
  expect(told(await verify())).toEqual([`chain-broken* ${first}`]);
  await restore(heads[0]);

  // Two change places.
  const [two, three] = [sealed(heads[1]), sealed(heads[2])];
  await files.putBytes(second ?? '', Buffer.from(headText(three)), 'application/json', never);
  await files.putBytes(third ?? '', Buffer.from(headText(two)), 'application/json', never);
  expect(told(await verify())).toEqual(expect.arrayContaining([`chain-broken* ${second}`, `chain-broken* ${third}`]));
  await restore(heads[1]);
  await restore(heads[2]);

  // The last one is missed by nobody but the report of the time before.
  await archive.remove(last ?? '');
  const result = await verify();
  expect(told(result)).toContain('chain-broken* manifests/dt=2026-06-18/');
  expect(JSON.stringify(result.rows())).toContain('as verifications/');
  expect(result.code).toBe(1);
});

test('what was vouched for once is missed until it is back, however often it is looked for', async () => {
  await archive.add(2);
  const head = sealed(await archive.close());
  const change = (to: ManifestHead): Promise<unknown> =>
    archive.files.putBytes(headKey(head), Buffer.from(headText(to)), 'application/json', never);
  expect((await verify()).code).toBe(0);
  await change({ ...head, writer: 'somebody else' });
  for (let times = 0; times < 2; times += 1) expect(told(await verify())).toEqual([`chain-broken* ${headKey(head)}`]);
  await archive.remove(headKey(head));
  await verify();
  expect(told(await verify())).toContain(`chain-broken* manifests/dt=${DT}/`);
  await change(head);
  expect(told(await verify())).toEqual([]);
});

test('what the store does not give is unchecked and not different, and tried again by the same command', async () => {
  const [key = ''] = await archive.add(6);
  await archive.close();
  await using proxy = await startFaultProxy(archive.backend.endpoint);
  const env = { ...archive.environment, ...COMPILE_CACHE, AWS_ENDPOINT_URL_S3: proxy.endpoint };
  const isGet = ({ operation, key: asked }: { operation: string; key: string }): boolean =>
    operation === 'GetObject' && asked.startsWith('media/');
  const fault = proxy.arm((request) => isGet(request) && request.key === key, {
    type: 'answer',
    status: 503,
    code: 'SlowDown',
  });
  const result = await runCommand(['verify', '--json', '--all'], { env });
  expect(result.rows()).toEqual([{ unchecked: 'store-busy', key }]);
  expect(result.stderr).toContain('1 unchecked');
  expect(result.code).toBe(1);
  expect(await reports()).toEqual([]);
  fault.disarm();

  const before = proxy.seen.length;
  const again = await runCommand(['verify', '--json', '--all'], { env });
  expect(again.code).toBe(0);
  expect(
    proxy.seen
      .slice(before)
      .filter(isGet)
      .map((request) => request.key),
  ).toEqual([key]);
  expect((await reports()).map(({ objects }) => objects.read)).toEqual([6]);
});

test('a blip of the store is made good in the same run', async () => {
  await archive.add(6);
  await archive.close();
  await using proxy = await startFaultProxy(archive.backend.endpoint);
  const isMedia = ({ operation, key }: { operation: string; key: string }): boolean =>
    operation === 'GetObject' && key.startsWith('media/');
  // Each is tried three times by the SDK; the answer that breaks off is not.
  const cut = proxy.arm(isMedia, { type: 'cut-answer', afterBytes: 11 }, 2);
  proxy.arm(isMedia, { type: 'answer', status: 503, code: 'SlowDown' }, 4);
  const env = { ...archive.environment, ...COMPILE_CACHE, AWS_ENDPOINT_URL_S3: proxy.endpoint };
  const result = await runCommand(['verify', '--json', '--all'], { env });
  expect(result.rows()).toEqual([]);
  expect(result.code).toBe(0);
  expect(cut.met).toBe(2);
});

test('killed at any point, it goes on behind what it had noted: 3,000 objects, none of those read twice', async () => {
  const apps = ['wx00000000000000a1', 'wx00000000000000a2', 'wx00000000000000a3', 'wx00000000000000a4'];
  for (const app of apps) await archive.add(750, { app });
  const all = await keysBelow('media/');
  expect(sealed(await archive.close()).objects).toBe(3_000);
  const [spoilt = '', late = ''] = [all[20], all[2_990]];
  await archive.overwrite(spoilt, Buffer.alloc(40, 7));
  await archive.overwrite(late, Buffer.alloc(40, 7));

  await using proxy = await startFaultProxy(archive.backend.endpoint);
  const env = { ...archive.environment, AWS_ENDPOINT_URL_S3: proxy.endpoint };
  const child = spawn(process.execPath, [cliPath(), 'verify', '--json', '--all'], { env, stdio: 'ignore', cwd: '/' });
  const ended = new Promise((resolve) => child.once('exit', (_, signal) => resolve(signal)));
  const noted = await eventually(async () => {
    const [key] = await keysBelow('verifications/');
    if (key === undefined) return undefined;
    const progress = JSON.parse((await archive.read(key)).toString()) as VerifyProgress;
    return progress.objects >= 1_000 ? progress : undefined;
  });
  child.kill('SIGKILL');
  expect(await ended).toBe('SIGKILL');
  expect(noted.differences).toHaveLength(1);

  const [key = ''] = await keysBelow('verifications/');
  const last = JSON.parse((await archive.read(key)).toString()) as VerifyProgress;
  const before = proxy.seen.length;
  const result = await runCommand(['verify', '--json', '--all'], { env });
  const read = proxy.seen
    .slice(before)
    .filter(({ operation, key: asked }) => operation === 'GetObject' && asked.startsWith('media/'))
    .map((request) => request.key);
  expect(read.toSorted()).toEqual(all.filter((one) => one > last.lastKey));
  expect(read.length).toBeLessThanOrEqual(2_000);
  expect(told(result)).toEqual([`sha256* ${spoilt}`, `sha256* ${late}`]);
  expect(await keysBelow('verifications/')).toHaveLength(1);
  const [report] = await reports();
  expect(report).toMatchObject({ objects: { listed: 3_000, read: 3_000 }, counts: { sha256: 2 } });
}, 120_000);

test('what was broken off more than a week ago is begun anew', async () => {
  await archive.add(2);
  await archive.close();
  const note = async (startedAt: string): Promise<void> => {
    const progress: VerifyProgress = {
      ...{ v: 1, startedAt, savedAt: startedAt, seed: '00', lastKey: 'media/z', objects: 9, bytes: 9 },
      ...{ differences: [], counts: {}, unchecked: [] },
    };
    await writeProgress(archive.files, {}, progress, never);
  };
  const readIn = async (): Promise<number | undefined> => (await reports()).at(-1)?.objects.read;
  await note(iso(Date.now() - 8 * DAY));
  const fresh = await verify('--all');
  expect(fresh.stderr).toContain('was broken off too long ago: from the beginning');
  expect(await readIn()).toBe(2);
  await note(iso(Date.now() - 6 * DAY));
  expect((await verify('--all')).stderr).toContain('goes on with what was begun');
});

test('stopped by SIGTERM it says so, and --restart forgets', async () => {
  await archive.add(200, { sizeBytes: 4_000 });
  await archive.close();
  const child = spawn(process.execPath, [cliPath(), 'verify', '--all', '--rate', '64KiB', '--concurrency', '2'], {
    env: { ...archive.environment },
    cwd: '/',
  });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const ended = new Promise((resolve) => child.once('close', resolve));
  await eventually(() => (stderr.includes('to read') ? true : undefined));
  const sized = (): Promise<number> => keysBelow('verifications/').then((keys) => keys.length);
  await eventually(async () => ((await sized()) > 0 ? true : undefined));
  child.kill('SIGTERM');
  expect(await ended).toBe(1);
  expect(stderr).toContain('the same command goes on from here');
  expect(await sized()).toBe(1);
  const fresh = await verify('--all', '--restart');
  expect(fresh.stderr).not.toContain('goes on with');
  expect(fresh.code).toBe(0);
});
