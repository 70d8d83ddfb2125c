import { join } from 'node:path';
import { type Duck, openDuck } from '../catalog/duck.ts';
import type { ConfigWithStore } from '../config.ts';
import type { ArchiveStore } from '../store/archive-store.ts';
import { type BucketFiles, createBucketFiles } from '../store/bucket-files.ts';
import { addFence } from '../store/fence.ts';
import { createS3Client } from '../store/s3-client.ts';
import { createS3Store } from '../store/s3-store.ts';
import { openWorkFolder } from './work-folder.ts';

const CONNECTIONS = 32;

/** What commands need of the catalog: the bucket, DuckDB, and a folder that goes with them. */
export interface CatalogTools extends AsyncDisposable {
  readonly files: BucketFiles;
  readonly store: ArchiveStore;
  readonly duck: Duck;
  readonly folder: string;
}

/** @param mayGo asked before each request to the bucket; throws when it may not. */
export async function openCatalogTools(config: ConfigWithStore, mayGo?: () => void): Promise<CatalogTools> {
  const { bucket, partSizeBytes } = config.store;
  const client = createS3Client(config.store, CONNECTIONS);
  if (mayGo !== undefined) addFence(client, mayGo);
  const work = await openWorkFolder(config.catalog.folder, 'tools');
  const { folder } = work;
  const duck = await openDuck({ memoryBytes: config.catalog.memoryBytes, threads: 1, folder: join(folder, 'spill') });
  return {
    files: createBucketFiles({ client, bucket, partSizeBytes }),
    store: createS3Store({ client, bucket, partSizeBytes }),
    duck,
    folder,
    [Symbol.asyncDispose]: async () => {
      duck[Symbol.dispose]();
      client.destroy();
      await work[Symbol.asyncDispose]();
    },
  };
}
