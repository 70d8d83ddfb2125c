import { ListObjectsV2Command, type ListObjectsV2CommandOutput, type S3Client } from '@aws-sdk/client-s3';
import { FailureError, failure } from '../failure.ts';
import type { ListedObject } from './archive-store.ts';
import { throwStoreError } from './attempt.ts';
import { etagOf } from './read-object.ts';

/** An object as a listing tells it. */
export interface BucketObject extends ListedObject {
  /** Without quotes. */
  readonly etag?: string;
  /** Unix time in milliseconds. A HEAD tells it to the second, a listing mostly closer. */
  readonly lastModified?: number;
}

interface Listing {
  readonly prefix: string;
  /** Only keys behind this one, which needs not be there. */
  readonly after?: string | undefined;
}

/** Lists the objects below a prefix in key order, a page at a time. @throws FailureError */
export async function* listObjects(
  client: S3Client,
  bucket: string,
  listing: Listing,
  signal: AbortSignal,
): AsyncIterable<BucketObject> {
  for await (const { Contents = [] } of listPages(client, bucket, listing, signal)) {
    for (const { Key, Size, ETag, LastModified } of Contents) {
      if (Key === undefined) continue;
      const etag = etagOf(ETag);
      yield {
        key: Key,
        sizeBytes: Size ?? 0,
        ...(etag === undefined ? {} : { etag }),
        ...(LastModified === undefined ? {} : { lastModified: LastModified.getTime() }),
      };
    }
  }
}

/** Lists what lies between a prefix and the next slash, as prefixes that end in it. @throws FailureError */
export async function* listFolders(
  client: S3Client,
  bucket: string,
  prefix: string,
  signal: AbortSignal,
): AsyncIterable<string> {
  for await (const { CommonPrefixes = [] } of listPages(client, bucket, { prefix, delimiter: '/' }, signal)) {
    for (const { Prefix } of CommonPrefixes) {
      if (Prefix !== undefined) yield Prefix;
    }
  }
}

async function* listPages(
  client: S3Client,
  bucket: string,
  { prefix, after, delimiter }: Listing & { readonly delimiter?: string },
  signal: AbortSignal,
): AsyncIterable<ListObjectsV2CommandOutput> {
  const place = { Bucket: bucket, Prefix: prefix, ...(delimiter === undefined ? {} : { Delimiter: delimiter }) };
  let from: { StartAfter?: string; ContinuationToken?: string } = after === undefined ? {} : { StartAfter: after };
  for (;;) {
    const page = await client
      .send(new ListObjectsV2Command({ ...place, ...from }), { abortSignal: signal })
      .catch((error: unknown) => throwStoreError(error, signal));
    yield page;
    if (page.IsTruncated !== true) return;
    // To end here would be to say that there is no more.
    if (page.NextContinuationToken === undefined) {
      throw new FailureError(
        failure('store-refused', { detail: 'a list that is cut short does not say how to go on' }),
      );
    }
    from = { ContinuationToken: page.NextContinuationToken };
  }
}
