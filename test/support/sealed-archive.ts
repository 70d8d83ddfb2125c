import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DeleteObjectCommand, GetObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3';
import { describeObject } from '../../src/archive/object-metadata.ts';
import { partitionOfKey, tablePrefix } from '../../src/catalog/catalog-keys.ts';
import { readState, writeState } from '../../src/catalog/catalog-state.ts';
import { dayAfter } from '../../src/catalog/days.ts';
import { type Duck, fromParquet, openDuck } from '../../src/catalog/duck.ts';
import type { ManifestHead } from '../../src/catalog/manifest.ts';
import { sealDay } from '../../src/catalog/manifest-seal.ts';
import { MEDIA_TABLE } from '../../src/catalog/media-table.ts';
import { columnsOf, copy, localPath } from '../../src/catalog/parquet.ts';
import { reconcileDay } from '../../src/catalog/reconcile.ts';
import type { MediaKind } from '../../src/media/kind.ts';
import type { MediaJob } from '../../src/media/media-job.ts';
import type { ArchiveStore } from '../../src/store/archive-store.ts';
import { type BucketFiles, createBucketFiles } from '../../src/store/bucket-files.ts';
import { mediaKey } from '../../src/store/object-keys.ts';
import { createS3Store } from '../../src/store/s3-store.ts';
import { APP_ID } from './jobs.ts';
import type { Environment } from './stack.ts';
import { clientOf, openEmbeddedBackend, PART_SIZE_BYTES, type S3Backend, sha256Of, someBytes } from './store.ts';

export const DT = '2026-06-15';
const never = new AbortController().signal;

export interface NewObjects {
  readonly dt?: string;
  readonly app?: string;
  readonly kind?: MediaKind;
  readonly sizeBytes?: number;
}

/** A bucket with media in it as workers leave them, their rows, and days that are closed. Nothing of it needs Redis. */
export interface SealedArchive extends AsyncDisposable {
  readonly backend: S3Backend;
  readonly files: BucketFiles;
  readonly store: ArchiveStore;
  readonly duck: Duck;
  /** On disk, and gone with the archive. */
  readonly folder: string;
  /** Of a command. */
  readonly environment: Environment;
  /** Archives media, and returns their keys. */
  add(count: number, objects?: NewObjects): Promise<string[]>;
  /** Makes the rows that are missing, and seals. The next days are open. */
  close(dt?: string): Promise<ManifestHead | undefined>;
  read(key: string): Promise<Buffer>;
  /** Writes an object with the metadata that it has, or others. */
  overwrite(key: string, bytes: Uint8Array, metadata?: Record<string, string>): Promise<void>;
  remove(key: string): Promise<void>;
  /** Changes rows of a day as somebody with a SQL tool would. @param changed the columns, in SQL. */
  alterRows(where: string, changed: string, dt?: string): Promise<void>;
  removeRows(where: string, dt?: string): Promise<void>;
}

let serial = 0;

export async function openSealedArchive(given?: S3Backend): Promise<SealedArchive> {
  await using parts = new AsyncDisposableStack();
  const backend = given ?? parts.use(await openEmbeddedBackend());
  const folder = await mkdtemp(join(tmpdir(), 'weixin-media-archive-'));
  parts.defer(() => rm(folder, { recursive: true, force: true }));
  const client = clientOf(backend);
  parts.defer(() => client.destroy());
  const place = { client, bucket: backend.bucket, partSizeBytes: PART_SIZE_BYTES };
  const files = createBucketFiles(place);
  const store = createS3Store(place);
  const duck = parts.use(await openDuck({ memoryBytes: 128 * 1024 * 1024, threads: 1, folder: join(folder, 'spill') }));
  const now = Date.now;
  const { bucket: Bucket } = backend;
  const moved = parts.move();

  async function put(key: string, Body: Uint8Array, Metadata: Record<string, string>): Promise<void> {
    await client.send(new PutObjectCommand({ Bucket, Key: key, Body, Metadata, ContentType: 'image/jpeg' }));
  }

  const rest = (source: string, where: string): string =>
    `SELECT ${columnsOf(MEDIA_TABLE)} FROM ${source} WHERE NOT (${where})`;

  async function rewriteRows(dt: string, queryOf: (source: string) => string): Promise<void> {
    for await (const { key } of files.list(`${tablePrefix('media')}dt=${dt}/`, never)) {
      if (partitionOfKey(key) === undefined) continue;
      const [before, after] = [localPath(folder, key), `${localPath(folder, key)}.after`];
      await files.getFile(key, before, never);
      await copy(duck, MEDIA_TABLE, queryOf(fromParquet([before])), after, never);
      await files.putFile(key, after, 'application/vnd.apache.parquet', never);
    }
  }

  return {
    backend,
    files,
    store,
    duck,
    folder,
    environment: {
      ARCHIVE_BUCKET: Bucket,
      S3_FORCE_PATH_STYLE: 'true',
      AWS_ENDPOINT_URL_S3: backend.endpoint,
      AWS_REGION: 'us-east-1',
      AWS_ACCESS_KEY_ID: backend.accessKeyId,
      AWS_SECRET_ACCESS_KEY: backend.secretAccessKey,
      CATALOG_FOLDER: folder,
    },
    add: async (count, { dt = DT, app = APP_ID, kind = 'image', sizeBytes = 40 } = {}) => {
      const keys: string[] = [];
      for (let start = 0; start < count; start += 50) {
        await Promise.all(
          Array.from({ length: Math.min(50, count - start) }, async () => {
            serial += 1;
            const receivedAt = `${dt}T12:00:00.000Z`;
            const mediaId = `media_${String(serial).padStart(6, '0')}`;
            const job: MediaJob = { v: 1, appId: app, mediaId, kind, receivedAt };
            const bytes = someBytes(sizeBytes);
            const body = { declaredType: 'image/jpeg' };
            const { metadata } = describeObject(job, body, undefined, `${dt}T12:00:01.000Z`, sha256Of(bytes));
            const key = mediaKey(job, 'jpg');
            await put(key, bytes, { ...metadata });
            keys.push(key);
          }),
        );
      }
      return keys.toSorted();
    },
    close: async (dt = DT) => {
      await reconcileDay({ files, store, duck, folder, now }, dt, never);
      const head = await sealDay({ files, store, duck, folder, now }, dt, never);
      const state = await readState(files, never);
      const closeNext = [state.closeNext ?? '', dayAfter(dt)].toSorted().at(-1);
      await writeState(files, { ...state, closeNext }, never);
      return head;
    },
    read: async (key) => {
      const { Body } = await client.send(new GetObjectCommand({ Bucket, Key: key }));
      return Buffer.from((await Body?.transformToByteArray()) ?? []);
    },
    overwrite: async (key, bytes, metadata) => {
      const there = await store.head(key, never);
      await put(key, bytes, metadata ?? { ...(there.ok ? there.value?.metadata : {}) });
    },
    remove: async (key) => void (await client.send(new DeleteObjectCommand({ Bucket, Key: key }))),
    alterRows: (where, changed, dt = DT) =>
      rewriteRows(
        dt,
        (source) => `${rest(source, where)} UNION ALL SELECT * REPLACE (${changed}) FROM ${source} WHERE ${where}`,
      ),
    removeRows: (where, dt = DT) => rewriteRows(dt, (source) => rest(source, where)),
    [Symbol.asyncDispose]: () => moved.disposeAsync(),
  };
}
