import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { DT, openSealedArchive, type SealedArchive } from '../support/sealed-archive.ts';
import { type CommandResult, runCommand } from '../support/stack.ts';

const never = new AbortController().signal;
const run = promisify(execFile);
let archive: SealedArchive;
let keys: string[];

beforeAll(async () => {
  archive = await openSealedArchive();
  keys = await archive.add(12);
  keys.push(...(await archive.add(3, { dt: '2026-06-16' })));
  await archive.close();
  await archive.close('2026-06-16');
});

afterAll(() => archive[Symbol.asyncDispose]());

function exported(folder: string, ...args: string[]): Promise<CommandResult> {
  return runCommand(['export', '--bagit', folder, '--json', ...args], { env: archive.environment });
}

/** Checks a bag as RFC 8493 says in 3, without anything of ours. Returns what is wrong. */
async function mistakesIn(bag: string): Promise<string[]> {
  const mistakes: string[] = [];
  const text = (name: string): Promise<string> => readFile(join(bag, name), 'utf8');
  if ((await text('bagit.txt')) !== 'BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n')
    mistakes.push('bagit.txt is no declaration');
  const listed = new Map<string, string>();
  for (const name of ['manifest-sha256.txt', 'tagmanifest-sha256.txt']) {
    for (const line of (await text(name)).split('\n').filter((one) => one !== '')) {
      const [, sum = '', path = ''] = /^([0-9a-f]{64}) [ *](.+)$/.exec(line) ?? [];
      const file = path.replaceAll('%0A', '\n').replaceAll('%0D', '\r').replaceAll('%25', '%');
      listed.set(file, sum);
      const bytes = await readFile(join(bag, file)).catch(() => undefined);
      if (bytes === undefined || createHash('sha256').update(bytes).digest('hex') !== sum)
        mistakes.push(`${name}: ${path}`);
    }
  }
  const payload = (await readdir(join(bag, 'data'), { recursive: true, withFileTypes: true })).filter((one) =>
    one.isFile(),
  );
  let bytes = 0;
  for (const { parentPath, name } of payload) {
    const path = join(parentPath, name).slice(bag.length + 1);
    if (!listed.has(path)) mistakes.push(`not in the manifest: ${path}`);
    bytes += (await stat(join(bag, path))).size;
  }
  const [, oxum] = /^Payload-Oxum: (.*)$/m.exec(await text('bag-info.txt')) ?? [];
  if (oxum !== `${bytes}.${payload.length}`)
    mistakes.push(`Payload-Oxum ${oxum}, and there are ${bytes}.${payload.length}`);
  return mistakes;
}

test('a day becomes a bag that others find valid', async () => {
  const bag = join(archive.folder, 'day');
  const result = await exported(bag, '--dt', DT);
  expect(result.code).toBe(0);
  expect(result.rows().at(-1)).toMatchObject({ objects: 12, kept: 0, problems: 0 });
  expect(await mistakesIn(bag)).toEqual([]);
  // coreutils, as anybody would.
  for (const name of ['manifest-sha256.txt', 'tagmanifest-sha256.txt'])
    await expect(run('sha256sum', ['--check', '--strict', '--quiet', name], { cwd: bag })).resolves.toMatchObject({
      stdout: '',
    });
  const rows = (await readFile(join(bag, 'metadata/media.ndjson'), 'utf8')).trim().split('\n');
  expect(rows.map((line) => (JSON.parse(line) as { key: string }).key)).toEqual(keys.slice(0, 12).toSorted());

  const again = await exported(bag, '--dt', DT);
  expect(again.rows().at(-1)).toMatchObject({ objects: 12, kept: 12, problems: 0 });
  const [first = ''] = keys;
  await writeFile(join(bag, 'data', first), 'spoilt');
  expect((await mistakesIn(bag)).length).toBeGreaterThan(0);
  expect((await exported(bag, '--dt', DT)).rows().at(-1)).toMatchObject({ kept: 11, problems: 0 });
  expect(await mistakesIn(bag)).toEqual([]);
});

test('an app becomes a bag over all its days', async () => {
  const bag = join(archive.folder, 'app');
  const result = await exported(bag, '--app', 'wx0123456789abcdef', '--since', '2026-06-01');
  expect(result.rows().at(-1)).toMatchObject({ objects: 15, problems: 0 });
  expect(await mistakesIn(bag)).toEqual([]);
});

test('what was begun on another day goes on with the days that it had', async () => {
  const bag = join(archive.folder, 'yesterday');
  const app = 'wx0123456789abcdef';
  await mkdir(bag);
  const selection = { bucket: archive.environment['ARCHIVE_BUCKET'], since: '2026-06-01', until: DT, app };
  await writeFile(join(bag, 'selection.json'), `${JSON.stringify(selection)}\n`);
  const result = await exported(bag, '--app', app);
  expect(result.stderr).toContain(`goes on with a bag of days up to ${DT}`);
  expect(result.rows().at(-1)).toMatchObject({ objects: 12, problems: 0 });
  expect(await mistakesIn(bag)).toEqual([]);
  expect((await exported(bag, '--app', app, '--until', '2026-06-16')).code).toBe(2);
});

test('what the catalog has no row of any more is not left in a bag', async () => {
  const bag = join(archive.folder, 'erased');
  expect((await exported(bag, '--dt', DT)).code).toBe(0);
  const folder = join(bag, 'data/media/app=wx0123456789abcdef/kind=image', `dt=${DT}`);
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'erased-since.jpg'), 'a person');
  await writeFile(join(folder, 'killed.jpg.fetched.part'), 'half');
  expect(await mistakesIn(bag)).toHaveLength(3);
  expect((await exported(bag, '--dt', DT)).rows().at(-1)).toMatchObject({ objects: 12, kept: 12, problems: 0 });
  expect(await mistakesIn(bag)).toEqual([]);
});

test('a folder that holds something else is refused, and left as it is', async () => {
  const bag = join(archive.folder, 'foreign');
  await mkdir(bag);
  await writeFile(join(bag, 'letter.txt'), 'mine');
  const result = await exported(bag, '--dt', DT);
  expect(result).toMatchObject({ code: 2, stdout: '' });
  expect(await readdir(bag)).toEqual(['letter.txt']);
  // Also the bag of another day.
  expect((await exported(join(archive.folder, 'day'), '--dt', '2026-06-16')).code).toBe(2);
});

test.each([
  ['neither a day nor an app', []],
  ['a day and a time', ['--dt', DT, '--since', DT]],
  ['a time for a day', ['--dt', '7d']],
  ['an hour for a day', ['--dt', `${DT}T12:00:00Z`]],
  ['a day that is none', ['--dt', '2026-02-30']],
])('%s is wrong usage', async (_what, args) => {
  expect((await exported(join(archive.folder, 'never'), ...args)).code).toBe(2);
});

test.each([
  ['a day without rows', ['--dt', '2026-06-20'], '2026-06-20'],
  ['an account that nobody knows', ['--app', 'wxffffffffffffffff', '--until', DT], 'wxffffffffffffffff'],
])('%s makes no bag, and is told', async (_what, args, named) => {
  const bag = join(archive.folder, 'nothing');
  const result = await exported(bag, ...args);
  expect(result).toMatchObject({ code: 1, stdout: '' });
  expect(result.stderr).toContain(`the catalog has no media of ${named}`);
  await expect(readdir(bag)).rejects.toThrow('ENOENT');
});

test('of a day that is not closed yet it is told; a bag whose media have all gone is none any more', async () => {
  await using other = await openSealedArchive();
  await other.add(1);
  await other.close();
  const bag = join(other.folder, 'bag');
  const args = ['export', '--bagit', bag, '--json', '--dt', DT];
  expect((await runCommand(args, { env: other.environment })).stderr).not.toContain('not closed');
  for await (const { key } of other.files.list('manifests/', never)) await other.files.remove(key, never);
  const open = await runCommand(args, { env: other.environment });
  expect(open.code).toBe(0);
  expect(open.stderr).toContain(`not closed yet, and may get more media: ${DT}`);
  for await (const { key } of other.files.list('catalog/media/', never)) await other.files.remove(key, never);
  expect((await runCommand(args, { env: other.environment })).code).toBe(1);
  const files = await readdir(bag, { recursive: true, withFileTypes: true });
  expect(files.filter((one) => one.isFile() && /^manifest|\.jpg$/.test(one.name))).toEqual([]);
});

test('objects that are not what the catalog says are named, and there is no valid bag', async () => {
  await using other = await openSealedArchive();
  const [gone = '', altered = '', longer = ''] = await other.add(5);
  await other.close();
  await other.remove(gone);
  await other.overwrite(altered, Buffer.alloc((await other.read(altered)).byteLength, 1));
  await other.overwrite(longer, Buffer.alloc(9_999, 1));
  const bag = join(other.folder, 'bag');
  const result = await runCommand(['export', '--bagit', bag, '--json', '--dt', DT], { env: other.environment });
  expect(result.code).toBe(1);
  const problems = result
    .rows()
    .flatMap((row) => (row['problem'] === undefined ? [] : [`${row['problem']} ${row['key']}`]));
  expect(problems.toSorted()).toEqual([`missing ${gone}`, `sha256 ${altered}`, `size ${longer}`].toSorted());
  const files = await readdir(bag, { recursive: true });
  expect(files.filter((name) => /manifest|\.part$|\.fetched$/.test(name))).toEqual([]);
  await rm(bag, { recursive: true });
});
