import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { partitionOfKey, tablePrefix } from '../../src/catalog/catalog-keys.ts';
import { fromParquet, openDuck } from '../../src/catalog/duck.ts';
import { letterRow } from '../../src/catalog/letter-row.ts';
import { localPath } from '../../src/catalog/parquet.ts';
import { rowFromObject } from '../../src/catalog/row-from-object.ts';
import type { AnyRow, TableName } from '../../src/catalog/table.ts';
import { type BucketFiles, createBucketFiles } from '../../src/store/bucket-files.ts';
import type { Stack } from './stack.ts';

const never = new AbortController().signal;

export function filesOf({ s3Client, s3 }: Pick<Stack, 's3Client' | 's3'>): BucketFiles {
  return createBucketFiles({ client: s3Client, bucket: s3.bucket, partSizeBytes: 8 * 1024 * 1024 });
}

/** Every row of every file of a table, as it lies in the bucket: one that is there twice comes twice. */
export async function catalogRows(stack: Stack, table: TableName): Promise<AnyRow[]> {
  const files = filesOf(stack);
  const folder = await mkdtemp(join(stack.folder, 'read-'));
  const paths: string[] = [];
  for await (const { key } of files.list(tablePrefix(table), never)) {
    if (partitionOfKey(key) === undefined) throw new Error(`${key} is no file of the catalog`);
    const path = localPath(folder, key);
    await files.getFile(key, path, never);
    paths.push(path);
  }
  if (paths.length === 0) return [];
  using duck = await openDuck({ memoryBytes: 128 * 1024 * 1024, threads: 1, folder: join(folder, 'spill') });
  const rows = await duck.rows(`SELECT * FROM ${fromParquet(paths)}`, never);
  await rm(folder, { recursive: true, force: true });
  return rows;
}

/** The rows that the objects in the bucket make. */
export async function rowsOfObjects(stack: Stack): Promise<AnyRow[]> {
  const rows: AnyRow[] = [];
  for await (const { key } of stack.opened.store.list('media/', never)) {
    const row = await rowFromObject(stack.opened.store, key, never);
    if (row !== undefined) rows.push(row);
  }
  return rows;
}

/** The rows that the dead letters in the bucket make. */
export async function rowsOfLetters(stack: Stack): Promise<AnyRow[]> {
  const rows: AnyRow[] = [];
  for await (const { key } of stack.opened.store.list('dead-letters/', never)) {
    const row = await letterRow(filesOf(stack), key, never);
    if (row !== undefined) rows.push(row);
  }
  return rows;
}

/** In an order that does not depend on where they came from. */
export function sorted(rows: readonly AnyRow[]): AnyRow[] {
  return rows.toSorted((a, b) => (JSON.stringify(a['key'] ?? a) < JSON.stringify(b['key'] ?? b) ? -1 : 1));
}
