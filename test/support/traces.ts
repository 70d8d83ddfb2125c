import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import {
  GetObjectCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectVersionsCommand,
  type ListObjectVersionsCommandOutput,
} from '@aws-sdk/client-s3';
import { openDuck, sqlText } from '../../src/catalog/duck.ts';
import { dumpRedis, keysBelow, type Stack } from './stack.ts';

/**
 * Looks for texts as `grep` would: in Redis, in the files that Redis keeps on its disk, and in everything that the bucket
 * holds, each version of it: keys, headers and metadata, bodies as they lie and unpacked. Returns where each was seen.
 */
export async function traces(stack: Stack, needles: Readonly<Record<string, string>>): Promise<string[]> {
  const found = new Set<string>();
  const look = (where: string, text: string): void => {
    for (const [name, needle] of Object.entries(needles)) if (text.includes(needle)) found.add(`${name} in ${where}`);
  };
  for (const line of (await dumpRedis(stack.redis)).split('\n')) look(`Redis: ${line.slice(0, 120)}`, line);
  const folder = join(stack.folder, 'redis');
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    look(`the file ${entry.name} of Redis`, await readFile(join(entry.parentPath, entry.name), 'latin1'));
  }
  for await (const { where, text } of bucketTexts(stack)) look(where, text);
  return [...found];
}

interface BucketText {
  readonly where: string;
  readonly text: string;
}

/** Everything in the bucket as text, each version of each object. */
export async function* bucketTexts(stack: Stack): AsyncIterable<BucketText> {
  const { s3Client, s3 } = stack;
  const folder = await mkdtemp(join(stack.folder, 'traces-'));
  using duck = await openDuck({ memoryBytes: 128 * 1024 * 1024, threads: 1, folder: join(folder, 'spill') });
  for (const { key, versionId, isMarker } of await versionsOf(stack)) {
    const where = `${key}${versionId === undefined ? '' : `?versionId=${versionId}`}`;
    yield { where: `${where} (key)`, text: key };
    if (isMarker) continue;
    const place = { Bucket: s3.bucket, Key: key, ...(versionId === undefined ? {} : { VersionId: versionId }) };
    const { $metadata: _, ...head } = await s3Client.send(new HeadObjectCommand(place));
    yield { where: `${where} (headers)`, text: JSON.stringify(head) };
    const { Body } = await s3Client.send(new GetObjectCommand(place));
    const bytes = Buffer.from((await Body?.transformToByteArray()) ?? []);
    yield { where: `${where} (body)`, text: bytes.toString('latin1') };
    if (key.endsWith('.gz')) yield { where: `${where} (unpacked)`, text: gunzipSync(bytes).toString() };
    if (!key.endsWith('.parquet')) continue;
    const path = join(folder, 'file.parquet');
    await writeFile(path, bytes);
    const signal = AbortSignal.timeout(60_000);
    const rows = await duck.rows(`SELECT * FROM read_parquet(${sqlText(path)}, hive_partitioning = false)`, signal);
    yield { where: `${where} (rows)`, text: JSON.stringify(rows) };
  }
  const { Uploads = [] } = await s3Client.send(new ListMultipartUploadsCommand({ Bucket: s3.bucket }));
  for (const { Key = '' } of Uploads) yield { where: `the upload of ${Key}`, text: Key };
  await rm(folder, { recursive: true, force: true });
}

async function versionsOf(
  stack: Stack,
): Promise<{ readonly key: string; readonly versionId?: string; readonly isMarker: boolean }[]> {
  const { s3Client, s3 } = stack;
  const all: { key: string; versionId?: string; isMarker: boolean }[] = [];
  let from: { KeyMarker?: string; VersionIdMarker?: string } | undefined = {};
  while (from !== undefined) {
    // A server without versions refuses, or answers with a plain list.
    const page: ListObjectVersionsCommandOutput | undefined = await s3Client
      .send(new ListObjectVersionsCommand({ Bucket: s3.bucket, ...from }))
      .catch(() => undefined);
    for (const [entries, isMarker] of [
      [page?.Versions ?? [], false],
      [page?.DeleteMarkers ?? [], true],
    ] as const) {
      for (const { Key = '', VersionId } of entries)
        all.push({ key: Key, isMarker, ...(VersionId === undefined ? {} : { versionId: VersionId }) });
    }
    from =
      page?.IsTruncated === true
        ? {
            KeyMarker: page.NextKeyMarker ?? '',
            ...(page.NextVersionIdMarker === undefined ? {} : { VersionIdMarker: page.NextVersionIdMarker }),
          }
        : undefined;
  }
  if (all.length > 0) return all;
  return (await keysBelow(stack, '')).map((key) => ({ key, isMarker: false }));
}

/** The whole bucket, to be compared: what a test must not change. */
export async function bucketState(stack: Stack): Promise<string[]> {
  const texts: string[] = [];
  for await (const { where, text } of bucketTexts(stack)) texts.push(`${where}\n${text}`);
  return texts.toSorted();
}
