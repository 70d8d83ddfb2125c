import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gunzipSync, gzipSync } from 'node:zlib';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { headKey, headText, type ManifestHead, parseHead, parseLine, sha256Hex } from '../../src/catalog/manifest.ts';
import { readChain } from '../../src/catalog/manifest-chain.ts';
import { readManifest } from '../../src/catalog/manifest-list.ts';
import { sealDay } from '../../src/catalog/manifest-seal.ts';
import { reconcileDay } from '../../src/catalog/reconcile.ts';
import { DT, openSealedArchive, type SealedArchive } from '../support/sealed-archive.ts';
import { linesOf } from '../support/stack.ts';

const run = promisify(execFile);
const never = new AbortController().signal;

let archive: SealedArchive;

beforeEach(async () => {
  archive = await openSealedArchive();
});

afterEach(() => archive[Symbol.asyncDispose]());

async function linesIn({ list }: ManifestHead): Promise<string[]> {
  return linesOf(gunzipSync(await archive.read(list.key)).toString());
}

function sealed(head: ManifestHead | undefined): ManifestHead {
  if (head === undefined) throw new Error('nothing was sealed');
  return head;
}

test('a closed day is sealed with the size and hash of each object, in key order', async () => {
  const keys = await archive.add(12);
  const head = sealed(await archive.close());
  expect(head).toMatchObject({
    sequence: 1,
    dt: DT,
    revision: 1,
    objects: 12,
    bytes: 12 * 40,
    unlisted: 0,
    missing: 0,
  });
  expect(head.previous).toBeNull();
  const lines = (await linesIn(head)).map((line) => JSON.parse(line) as { key: string; size: number; sha256: string });
  expect(lines.map(({ key }) => key)).toEqual(keys);
  for (const { key, size, sha256 } of lines) {
    const bytes = await archive.read(key);
    expect({ size, sha256 }).toEqual({ size: bytes.byteLength, sha256: sha256Hex(bytes) });
  }
});

test('the head in the bucket is the one that was told, byte for byte', async () => {
  await archive.add(1);
  const head = sealed(await archive.close());
  const bytes = await archive.read(headKey(head));
  expect(bytes.toString()).toBe(headText(head));
  expect(parseHead(bytes)).toEqual(head);
});

test('an empty day gets a head too, and each head names the one before', async () => {
  await archive.add(2);
  const heads = [await archive.close(DT), await archive.close('2026-06-16'), await archive.close('2026-06-17')].map(
    sealed,
  );
  expect(heads.map(({ sequence, objects }) => [sequence, objects])).toEqual([
    [1, 2],
    [2, 0],
    [3, 0],
  ]);
  for (const [index, { previous }] of heads.entries()) {
    const before = heads[index - 1];
    expect(previous?.sha256).toBe(before === undefined ? undefined : sha256Hex(headText(before)));
  }
  const { links, breaks } = await readChain(archive.files, never);
  expect(links.map(({ head }) => head)).toEqual(heads);
  expect(breaks).toEqual([]);
});

test('a day that has changed gets another revision with what has been added, and none when that is nothing', async () => {
  await archive.add(3);
  await archive.close();
  await archive.close('2026-06-16');
  expect(await archive.close()).toBeUndefined();
  const late = await archive.add(2);
  const head = sealed(await archive.close());
  expect(head).toMatchObject({
    sequence: 3,
    dt: DT,
    revision: 2,
    objects: 2,
    previous: { sequence: 2, dt: '2026-06-16' },
  });
  expect((await linesIn(head)).map((line) => (JSON.parse(line) as { key: string }).key)).toEqual(late);
  expect(await archive.close()).toBeUndefined();
});

test('what has no row, and rows without an object, are counted in the head', async () => {
  const [first = ''] = await archive.add(5);
  await archive.close('2026-06-14');
  await archive.overwrite(`${dirname(first)}/foreign.txt`, Buffer.from('who knows'), {});
  await archive.close('2026-06-13');
  const { files, store, duck, folder } = archive;
  await reconcileDay({ files, store, duck, folder, now: Date.now }, DT, never);
  await archive.remove(first);
  expect(await archive.close()).toMatchObject({ objects: 4, unlisted: 1, missing: 1 });
});

test('a list that a crash left without a head is overwritten by the next try', async () => {
  await archive.add(3);
  const { files, duck, folder } = archive;
  const dying = { write: () => Promise.reject(new Error('killed')) };
  await archive.close('2026-06-14');
  await expect(sealDay({ files, duck, folder, store: dying, now: Date.now }, DT, never)).rejects.toThrow('killed');
  await archive.add(1);
  const { breaks, links } = await readChain(files, never);
  expect([links.length, breaks.length]).toEqual([1, 0]);
  const head = sealed(await archive.close());
  expect(head).toMatchObject({ sequence: 2, objects: 4 });
  expect((await readManifest(files, folder, head, () => undefined, never)).isIntact).toBe(true);
});

test('a head is never written over another one', async () => {
  await archive.add(1);
  const head = sealed(await archive.close());
  const { store } = archive;
  const body = Buffer.from(headText({ ...head, objects: 7 }));
  const digest = { sizeBytes: body.byteLength, sha256: sha256Hex(body) };
  const metadata = { 'archived-at': new Date().toISOString(), sha256: digest.sha256 };
  const object = { key: headKey(head), contentType: 'application/json', metadata, body, digest };
  const written = await store.write(object, never);
  // The embedded server knows no conditional write.
  if (written.ok) expect(archive.backend.createOnly).toBe(false);
  else expect(written.failure.code).toBe('object-conflict');
});

test('an erased line leaves a list intact, an altered, added, removed or moved one does not', async () => {
  await archive.add(4);
  const head = sealed(await archive.close());
  const lines = await linesIn(head);
  const { files, folder } = archive;
  const check = async (changed: readonly string[]): Promise<unknown> => {
    const bytes = gzipSync(changed.map((line) => `${line}\n`).join(''));
    await files.putBytes(head.list.key, bytes, 'application/gzip', never);
    const { isIntact, erased } = await readManifest(files, folder, head, () => undefined, never);
    return { isIntact, erased };
  };
  const [first = '', second = '', ...rest] = lines;
  expect(await check(lines)).toEqual({ isIntact: true, erased: 0 });
  const erased = JSON.stringify({ erased: sha256Hex(second) });
  expect(await check([first, erased, ...rest])).toEqual({ isIntact: true, erased: 1 });
  expect(await check([first, second.replace('"size":40', '"size":41'), ...rest])).toMatchObject({ isIntact: false });
  expect(await check([second, first, ...rest])).toMatchObject({ isIntact: false });
  expect(await check([first, ...rest])).toMatchObject({ isIntact: false });
  expect(await check([first, ...lines])).toMatchObject({ isIntact: false });
  expect(await check([`${first} `, second, ...rest])).toMatchObject({ isIntact: false });
  await files.putBytes(head.list.key, Buffer.from('no gzip'), 'application/gzip', never);
  expect((await readManifest(files, folder, head, () => undefined, never)).isIntact).toBe(false);
  const cut = gzipSync(lines.join('\n')).subarray(0, -12);
  await files.putBytes(head.list.key, cut, 'application/gzip', never);
  expect((await readManifest(files, folder, head, () => undefined, never)).isIntact).toBe(false);
});

test('a head that counts otherwise than its list is told by it', async () => {
  await archive.add(2);
  const head = sealed(await archive.close());
  const { files, folder } = archive;
  for (const other of [{ objects: 3 }, { bytes: 81 }])
    expect((await readManifest(files, folder, { ...head, ...other }, () => undefined, never)).isIntact).toBe(false);
});

test('a line is read back as it was written, and what is no line is none', () => {
  const object = { key: 'media/app=wx/a "b" \u2028 中.jpg', size: 3, sha256: 'a'.repeat(64) };
  expect(parseLine(JSON.stringify(object))).toEqual(object);
  for (const text of ['', '{', '[]', 'null', '{"key":"a"}', '{"key":"a","size":1.5,"sha256":"b"}', '{"erased":"x"}'])
    expect(parseLine(text)).toBeUndefined();
});

test('the recipe in docs/fixity.md verifies a day by hand, and finds what was changed', async () => {
  const keys = await archive.add(6);
  const heads = [sealed(await archive.close()), sealed(await archive.close('2026-06-16'))];
  const copyOf = join(archive.folder, 'copy');
  const fetchAll = async (): Promise<void> => {
    for (const key of [...keys, ...heads.flatMap((head) => [headKey(head), head.list.key])]) {
      const path = join(copyOf, key);
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, await archive.read(key));
    }
  };
  await fetchAll();
  const docs = await readFile(fileURLToPath(new URL('../../docs/fixity.md', import.meta.url)), 'utf8');
  const recipes = [...docs.matchAll(/```sh\n(# by hand:.*?)```/gs)].map(([, text = '']) => text);
  expect(recipes).toHaveLength(1);
  const check = (): Promise<{ stdout: string }> =>
    run('bash', ['-c', recipes.join('\n')], { cwd: copyOf }).catch((error: { stdout: string }) => error);
  const good = (await check()).stdout;
  expect(good).not.toContain('WRONG');
  expect(linesOf(good).filter((line) => line.endsWith(': OK'))).toHaveLength(keys.length);
  expect(good).toContain('list 000000000001: right');
  expect(good).toContain('chain 000000000002: right');

  // An erased line is fine.
  const list = join(copyOf, heads[0]?.list.key ?? '');
  const lines = linesOf(gunzipSync(await readFile(list)).toString());
  const others = [JSON.stringify({ erased: sha256Hex(lines[0] ?? '') }), ...lines.slice(1)];
  await writeFile(list, gzipSync(`${others.join('\n')}\n`));
  expect((await check()).stdout).not.toContain('WRONG');
  // A changed object, list and head are not.
  await writeFile(join(copyOf, keys[2] ?? ''), 'other bytes');
  await writeFile(list, gzipSync(`${others.toReversed().join('\n')}\n`));
  const first = join(copyOf, headKey(heads[0] ?? { dt: '', sequence: 0 }));
  await writeFile(first, (await readFile(first, 'utf8')).replace('"unlisted":0', '"unlisted":1'));
  const bad = (await check()).stdout;
  expect(bad).toContain(`${keys[2]}: FAILED`);
  expect(bad).toContain('list 000000000001: WRONG');
  expect(bad).toContain('chain 000000000002: WRONG');
});
