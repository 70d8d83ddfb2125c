import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { partitionOfKey } from '../../src/catalog/catalog-keys.ts';
import { type CatalogEvent, type CatalogTurn, createCatalogTurn } from '../../src/catalog/catalog-turn.ts';
import { type Duck, fromParquet, openDuck } from '../../src/catalog/duck.ts';
import { createOutboxReader, type OutboxReader } from '../../src/catalog/outbox-reader.ts';
import { localPath } from '../../src/catalog/parquet.ts';
import type { AnyRow, TableName } from '../../src/catalog/table.ts';
import { startEmbeddedS3 } from '../../src/demo/embedded-s3.ts';
import type { RedisClient } from '../../src/redis/connect.ts';
import { type RedisKeys, redisKeys } from '../../src/redis/keys.ts';
import { Secret } from '../../src/secret.ts';
import type { ArchiveStore } from '../../src/store/archive-store.ts';
import { type BucketFiles, createBucketFiles } from '../../src/store/bucket-files.ts';
import { createS3Client } from '../../src/store/s3-client.ts';
import { createS3Store } from '../../src/store/s3-store.ts';
import { DAY, HOUR } from '../../src/time.ts';
import type { TestRedis } from './redis.ts';
import { PART_SIZE_BYTES } from './store.ts';

const never = new AbortController().signal;

/** The end of a process in a test. */
export class Crash extends Error {
  override readonly name = 'Crash';
}

/** Where a process ends: at this change of the bucket or of the outbox, counted from 1, before or after it is done. */
export interface CrashPoint {
  readonly step: number;
  readonly when: 'before' | 'after';
}

/** An empty bucket and an empty outbox. */
export interface CatalogBench extends AsyncDisposable {
  readonly redis: RedisClient;
  readonly keys: RedisKeys;
  readonly files: BucketFiles;
  readonly store: ArchiveStore;
  readonly duck: Duck;
  readonly events: readonly CatalogEvent[];
  /** What a catalog process does. @param crash ends it with a `Crash`. @param days how long after today it is. */
  process(options?: { readonly crash?: CrashPoint; readonly days?: number; readonly redis?: RedisClient }): CatalogTurn;
  /** How many changes the last process has made. */
  steps(): number;
  rows(table: TableName): Promise<AnyRow[]>;
  keysBelow(prefix: string): Promise<string[]>;
}

export async function openCatalogBench(corner: TestRedis, flushRows = 5): Promise<CatalogBench> {
  await using parts = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'weixin-media-catalog-'));
  parts.defer(() => rm(folder, { recursive: true, force: true }));
  const { endpoint, bucket, stop } = await startEmbeddedS3('weixin-media');
  parts.defer(stop);
  const credentials = { accessKeyId: 'test', secretAccessKey: new Secret('test') };
  const client = createS3Client(
    { bucket, endpoint, partSizeBytes: PART_SIZE_BYTES, forcePathStyle: true, credentials },
    16,
  );
  parts.defer(() => client.destroy());
  const files = createBucketFiles({ client, bucket, partSizeBytes: PART_SIZE_BYTES });
  const store = createS3Store({ client, bucket, partSizeBytes: PART_SIZE_BYTES });
  const duck = parts.use(await openDuck({ memoryBytes: 128 * 1024 * 1024, threads: 1, folder: join(folder, 'spill') }));
  const keys = redisKeys(`${corner.prefix}:${crypto.randomUUID()}`);
  const events: CatalogEvent[] = [];
  let steps = 0;

  function breaking(crash: CrashPoint | undefined): <T>(change: () => Promise<T>) => Promise<T> {
    steps = 0;
    let isDead = false;
    return async (change) => {
      steps += 1;
      const isHere = crash?.step === steps;
      if (isDead || (isHere && crash.when === 'before')) {
        isDead = true;
        throw new Crash();
      }
      const result = await change();
      if (isHere) {
        isDead = true;
        throw new Crash();
      }
      return result;
    };
  }

  const moved = parts.move();
  return {
    redis: corner.redis,
    keys,
    files,
    store,
    duck,
    events,
    steps: () => steps,
    process: ({ crash, days = 0, redis = corner.redis } = {}) => {
      const step = breaking(crash);
      const reader: OutboxReader = createOutboxReader(redis, keys, crypto.randomUUID());
      return createCatalogTurn({
        files: {
          ...files,
          putFile: (...args) => step(() => files.putFile(...args)),
          putBytes: (...args) => step(() => files.putBytes(...args)),
          remove: (...args) => step(() => files.remove(...args)),
        },
        store,
        duck,
        folder,
        reader: { ...reader, done: (batch) => step(() => reader.done(batch)) },
        flushRows,
        mediaTtlMs: 72 * HOUR,
        closeAfterMs: 0,
        seal: async () => undefined,
        now: () => Date.now() + days * DAY,
        observe: (event) => events.push(event),
      });
    },
    rows: async (table) => {
      const paths: string[] = [];
      for await (const { key } of files.list(`catalog/${table}/`, never)) {
        if (partitionOfKey(key) === undefined) throw new Error(`${key} is no file of the catalog`);
        paths.push(localPath(folder, key));
        await files.getFile(key, localPath(folder, key), never);
      }
      if (paths.length === 0) return [];
      const rows = await duck.rows(`SELECT * FROM ${fromParquet(paths)}`, never);
      await Promise.all(paths.map((path) => rm(path)));
      return rows;
    },
    keysBelow: async (prefix) => (await Array.fromAsync(files.list(prefix, never))).map(({ key }) => key),
    [Symbol.asyncDispose]: () => moved.disposeAsync(),
  };
}

/** Runs a process that is to end where it was told. Returns false when it did not get there. */
export async function untilCrash(run: Promise<void>): Promise<boolean> {
  try {
    await run;
    return false;
  } catch (error) {
    if (error instanceof Crash) return true;
    throw error;
  }
}
