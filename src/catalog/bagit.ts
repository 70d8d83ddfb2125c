import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { copyFile, mkdir, opendir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { createInterface } from 'node:readline';
import { pipeline } from 'node:stream/promises';
import { z } from 'zod';
import { FailureError } from '../failure.ts';
import { iso } from '../time.ts';
import { VERSION } from '../version.ts';
import { type Partition, tablePrefix } from './catalog-keys.ts';
import { fromParquet } from './duck.ts';
import type { FlushParts } from './flush.ts';
import { inParallel } from './in-parallel.ts';
import { listHeads } from './manifest-chain.ts';
import { downloadRows } from './manifest-rows.ts';
import { columnsOf, copyLines, withAllColumns } from './parquet.ts';
import { TABLES } from './tables.ts';

/** Objects fetched at once. */
const FETCHED_AT_ONCE = 8;
/** Says what a bag holds; by it an export that was broken off is known, and goes on. */
const SELECTION_FILE = 'selection.json';
const ROWS_FILE = 'metadata/media.ndjson';

const selectionSchema = z.object({
  bucket: z.string(),
  since: z.string(),
  until: z.string(),
  app: z.string().exactOptional(),
});

/** What is exported: the media of these days, both included, of one app or of all. */
export type BagSelection = Readonly<z.output<typeof selectionSchema>>;

/** Why an object is not in a bag as it should be. */
export interface BagProblem {
  readonly key: string;
  readonly problem: 'missing' | 'size' | 'sha256' | 'unsafe' | 'unread';
}

export interface Bag {
  readonly objects: number;
  readonly bytes: number;
  /** There from an earlier run, whole. */
  readonly kept: number;
  readonly problems: number;
  /** Days of these media that no manifest has: they may get more. */
  readonly openDays: readonly string[];
}

/** The folder holds something that is no bag of this selection. */
export class ForeignFolderError extends Error {
  override readonly name = 'ForeignFolderError';
}

export interface BagParts extends FlushParts {
  readonly now: () => number;
  readonly onTotal: (objects: number) => void;
  readonly onObject: () => void;
  readonly onProblem: (problem: BagProblem) => void;
}

interface BagRow {
  readonly key: string;
  readonly size_bytes: number;
  readonly sha256: string;
}

/**
 * Exports media as a BagIt bag: each object below `data/` under its key, checked against its row while it is written, the
 * rows as a tag file. The manifests are written last, and only if nothing is wrong: before that it is no valid bag.
 *
 * Broken off, it goes on: what is there whole is not fetched again. Of no objects no bag is made. Memory does not grow with the number of objects.
 *
 * @throws ForeignFolderError, FailureError, and what the disk throws
 * @see https://www.rfc-editor.org/rfc/rfc8493
 */
export async function exportBag(
  parts: BagParts,
  selection: BagSelection,
  folder: string,
  signal: AbortSignal,
): Promise<Bag> {
  const isThere = await isBegun(folder, selection);
  const rows = join(parts.folder, 'media.ndjson');
  const { objects, openDays } = await writeRows(parts, selection, rows, signal);
  if (objects === 0 && !isThere) return { objects, bytes: 0, kept: 0, problems: 0, openDays };
  await claim(folder, selection);
  parts.onTotal(objects);
  let [bytes, kept, problems] = [0, 0, 0];
  await inParallel(FETCHED_AT_ONCE, rowsIn(rows), async (row) => {
    const put = await putObject(parts, row, folder, signal);
    if (put === 'kept') kept += 1;
    else if (put !== 'fetched') {
      problems += 1;
      parts.onProblem({ key: row.key, problem: put });
    }
    bytes += row.size_bytes;
    parts.onObject();
  });
  await removeUnlisted(join(folder, 'data'), rows, objects - problems);
  if (problems === 0 && objects > 0) await writeTagFiles(selection, rows, { objects, bytes }, folder, parts.now());
  return { objects, bytes, kept, problems, openDays };
}

/** What was selected when a bag was begun in this folder; `undefined` where none was. */
export async function readSelection(folder: string): Promise<BagSelection | undefined> {
  const text = await readFile(join(folder, SELECTION_FILE), 'utf8').catch(() => '{}');
  try {
    return selectionSchema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

/** False for a folder that is empty, or not there. @throws ForeignFolderError */
async function isBegun(folder: string, selection: BagSelection): Promise<boolean> {
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
    return [];
  });
  if (names.length === 0) return false;
  const there = await readFile(join(folder, SELECTION_FILE), 'utf8').catch(() => undefined);
  if (there === selectionText(selection)) return true;
  throw new ForeignFolderError(`${folder} is not empty, and holds no bag of the same media: name another folder`);
}

function selectionText(selection: BagSelection): string {
  return `${JSON.stringify(selection)}\n`;
}

/** Makes the folder ours. An older manifest goes: the bag is not whole until the end. */
async function claim(folder: string, selection: BagSelection): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (const name of ['tagmanifest-sha256.txt', 'manifest-sha256.txt']) await rm(join(folder, name), { force: true });
  await writeWhole(join(folder, SELECTION_FILE), selectionText(selection));
}

async function writeRows(
  { files, duck, folder }: FlushParts,
  { since, until, app }: BagSelection,
  path: string,
  signal: AbortSignal,
): Promise<Pick<Bag, 'objects' | 'openDays'>> {
  const sealed = new Set((await listHeads(files, signal)).map(({ dt }) => dt));
  const days = new Set<string>();
  const isWanted = (partition: Partition): boolean => {
    const { dt } = partition;
    if (dt < since || dt > until || (app !== undefined && partition.app !== app)) return false;
    days.add(dt);
    return true;
  };
  const paths = await downloadRows(files, tablePrefix('media'), folder, isWanted, signal);
  if (paths.length === 0) {
    await writeFile(path, '');
    return { objects: 0, openDays: [] };
  }
  const source = await withAllColumns(duck, TABLES.media, fromParquet(paths), signal);
  await copyLines(duck, `SELECT ${columnsOf(TABLES.media)} FROM ${source} ORDER BY key`, path, signal);
  const [answer] = await duck.rows(`SELECT count(*) AS n FROM ${source}`, signal);
  const openDays = [...days].filter((dt) => !sealed.has(dt)).toSorted();
  return { objects: Number(answer?.['n']), openDays };
}

async function* rowsIn(path: string): AsyncIterable<BagRow> {
  for await (const line of createInterface({ input: createReadStream(path) })) yield JSON.parse(line) as BagRow;
}

async function putObject(
  { files }: FlushParts,
  row: BagRow,
  folder: string,
  signal: AbortSignal,
): Promise<'kept' | 'fetched' | BagProblem['problem']> {
  // Whoever may write the catalog must not write anywhere else.
  if (
    !/^media\/[^\\]+$/.test(row.key) ||
    row.key.split('/').some((name) => name === '' || name === '.' || name === '..')
  )
    return 'unsafe';
  const path = join(folder, 'data', row.key);
  if ((await problemOf(path, row)) === undefined) return 'kept';
  await mkdir(dirname(path), { recursive: true });
  const fetched = await files.getFile(row.key, `${path}.fetched`, signal);
  // Of the disk, not the store: no other object would fare better.
  if (!fetched.ok && fetched.failure.code === 'unclassified') throw new FailureError(fetched.failure);
  if (!fetched.ok) return 'unread';
  if (!fetched.value) return 'missing';
  const problem = await problemOf(`${path}.fetched`, row);
  if (problem !== undefined) {
    await rm(`${path}.fetched`, { force: true });
    return problem;
  }
  await rename(`${path}.fetched`, path);
  return 'fetched';
}

/**
 * Removes what an earlier run has left in the payload and no row names any more, because it was erased or a kill came while
 * it was fetched: a bag with a file that its manifest has not is no valid one. Names are held in memory only where there is
 * such a file.
 */
async function removeUnlisted(data: string, rows: string, listed: number): Promise<void> {
  let count = 0;
  for await (const _ of filesBelow(data)) count += 1;
  if (count <= listed) return;
  const keys = new Set<string>();
  for await (const { key } of rowsIn(rows)) keys.add(key);
  for await (const path of filesBelow(data)) if (!keys.has(relative(data, path))) await rm(path);
}

async function* filesBelow(folder: string): AsyncIterable<string> {
  const entries = await opendir(folder, { recursive: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
    return undefined;
  });
  for await (const entry of entries ?? []) if (!entry.isDirectory()) yield join(entry.parentPath, entry.name);
}

/** What is wrong with a file; `undefined` when it is what the row says. */
async function problemOf(
  path: string,
  { size_bytes, sha256 }: BagRow,
): Promise<'missing' | 'size' | 'sha256' | undefined> {
  const there = await stat(path).catch(() => undefined);
  if (there === undefined) return 'missing';
  if (there.size !== size_bytes) return 'size';
  return (await sha256Of(path)) === sha256 ? undefined : 'sha256';
}

async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) hash.update(chunk);
  return hash.digest('hex');
}

async function writeTagFiles(
  { app, since, until, bucket }: BagSelection,
  rows: string,
  { objects, bytes }: Pick<Bag, 'objects' | 'bytes'>,
  folder: string,
  now: number,
): Promise<void> {
  await mkdir(join(folder, dirname(ROWS_FILE)), { recursive: true });
  await copyFile(rows, join(folder, `${ROWS_FILE}.part`));
  await rename(join(folder, `${ROWS_FILE}.part`), join(folder, ROWS_FILE));
  // A bag has a payload directory, be it empty.
  await mkdir(join(folder, 'data'), { recursive: true });
  const days = since === until ? since : `${since} to ${until}`;
  const info = [
    ['Bag-Software-Agent', `weixin-media-archiver ${VERSION}`],
    ['Bagging-Date', iso(now).slice(0, 10)],
    ['External-Identifier', `${bucket}/${app ?? 'all'}/${days}`],
    ['External-Description', `WeChat media received ${days}${app === undefined ? '' : ` of ${app}`}`],
    ['Payload-Oxum', `${bytes}.${objects}`],
  ];
  await writeWhole(join(folder, 'bagit.txt'), 'BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n');
  await writeWhole(join(folder, 'bag-info.txt'), info.map(([label, value]) => `${label}: ${value}\n`).join(''));

  async function* lines(): AsyncIterable<string> {
    for await (const { key, sha256 } of rowsIn(rows)) yield `${sha256}  data/${encoded(key)}\n`;
  }
  await pipeline(lines, createWriteStream(join(folder, 'manifest-sha256.txt.part')));
  await rename(join(folder, 'manifest-sha256.txt.part'), join(folder, 'manifest-sha256.txt'));
  const tags = ['bag-info.txt', 'bagit.txt', 'manifest-sha256.txt', ROWS_FILE, SELECTION_FILE];
  const sums = await Promise.all(tags.map(async (name) => `${await sha256Of(join(folder, name))}  ${name}\n`));
  await writeWhole(join(folder, 'tagmanifest-sha256.txt'), sums.join(''));
}

/** As RFC 8493 has it in 2.1.3. */
function encoded(path: string): string {
  return path.replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A');
}

async function writeWhole(path: string, text: string): Promise<void> {
  await writeFile(`${path}.part`, text);
  await rename(`${path}.part`, path);
}
