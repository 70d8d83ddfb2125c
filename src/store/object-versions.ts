import {
  DeleteObjectCommand,
  ListObjectVersionsCommand,
  type ListObjectVersionsOutput,
  type S3Client,
} from '@aws-sdk/client-s3';
import { FailureError, failure } from '../failure.ts';
import { throwStoreError } from './attempt.ts';
import { listObjects } from './list-objects.ts';
import { headObject } from './read-object.ts';
import { isOperationUnsupported } from './s3-errors.ts';

/** A version of an object, or a marker that says it was removed. */
export interface ObjectVersion {
  readonly key: string;
  /** `null` for what was written without versioning; absent where a store has no versions. */
  readonly versionId?: string;
  readonly isDeleteMarker: boolean;
  /** True for what a plain read of the key meets. */
  readonly isLatest: boolean;
}

interface VersionMarkers {
  readonly KeyMarker?: string;
  readonly VersionIdMarker?: string;
}

interface VersionPage {
  readonly versions: readonly ObjectVersion[];
  /** Absent on the last page. */
  readonly next?: VersionMarkers;
}

/**
 * Lists every version and delete marker below a prefix, a page at a time.
 *
 * A store without versions may say so, or may not know the question and answer with a plain listing, in which there is
 * no version. So nothing is believed to be there only after a plain listing has shown nothing either.
 *
 * @throws FailureError
 */
export async function* listVersions(
  client: S3Client,
  bucket: string,
  prefix: string,
  signal: AbortSignal,
): AsyncIterable<ObjectVersion> {
  let seen = false;
  for (let from: VersionMarkers | undefined = {}; from !== undefined; ) {
    const page: VersionPage = await versionPage(client, bucket, prefix, from, signal);
    seen ||= page.versions.length > 0;
    yield* page.versions;
    from = page.next;
  }
  if (seen) return;
  for await (const { key } of listObjects(client, bucket, { prefix }, signal))
    yield { key, isDeleteMarker: false, isLatest: true };
}

/**
 * Removes every version and delete marker of exactly one key and returns how many there were. Done only once a listing
 * shows none: it is asked for again from its beginning instead of from a marker that has just been removed.
 *
 * @throws FailureError
 */
export async function removeVersions(
  client: S3Client,
  bucket: string,
  key: string,
  signal: AbortSignal,
): Promise<number> {
  const remove = async (version: { VersionId?: string }): Promise<void> => {
    await client.send(new DeleteObjectCommand({ Bucket: bucket, Key: key, ...version }), { abortSignal: signal });
  };
  const removed = new Set<string | undefined>();
  for (;;) {
    const { versions } = await versionPage(client, bucket, key, {}, signal);
    // Keys that merely begin with this one come behind it.
    const left = versions.filter((version) => version.key === key);
    if (left.length === 0) break;
    for (const { versionId } of left) {
      if (removed.has(versionId)) {
        throw new FailureError(failure('store-busy', { detail: `version ${versionId} of ${key} is there again` }));
      }
      await remove(versionId === undefined ? {} : { VersionId: versionId });
      removed.add(versionId);
    }
  }
  if (removed.size > 0 || (await headObject(client, bucket, key, signal)) === undefined) return removed.size;
  await remove({});
  return 1;
}

/** One page of a listing; an empty last one where the store has no such listing. */
async function versionPage(
  client: S3Client,
  bucket: string,
  prefix: string,
  from: VersionMarkers,
  signal: AbortSignal,
): Promise<VersionPage> {
  const page: ListObjectVersionsOutput = await client
    .send(new ListObjectVersionsCommand({ Bucket: bucket, Prefix: prefix, ...from }), { abortSignal: signal })
    .catch((error: unknown) => (isOperationUnsupported(error) ? {} : throwStoreError(error, signal)));
  const { Versions = [], DeleteMarkers = [], IsTruncated, NextKeyMarker, NextVersionIdMarker } = page;
  const entries = [
    ...Versions.map((version) => ({ ...version, isDeleteMarker: false })),
    ...DeleteMarkers.map((marker) => ({ ...marker, isDeleteMarker: true })),
  ];
  const versions = entries.flatMap(({ Key, VersionId, IsLatest, isDeleteMarker }): ObjectVersion[] => {
    if (Key === undefined) return [];
    return [
      {
        key: Key,
        isDeleteMarker,
        isLatest: IsLatest === true,
        ...(VersionId === undefined ? {} : { versionId: VersionId }),
      },
    ];
  });
  if (IsTruncated !== true) return { versions };
  if (NextKeyMarker === undefined) {
    if (versions.length === 0) return { versions };
    throw new FailureError(failure('store-refused', { detail: 'a list that is cut short does not say how to go on' }));
  }
  return {
    versions,
    next: {
      KeyMarker: NextKeyMarker,
      ...(NextVersionIdMarker === undefined ? {} : { VersionIdMarker: NextVersionIdMarker }),
    },
  };
}
