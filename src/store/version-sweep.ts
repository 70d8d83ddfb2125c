import {
  AbortMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  NoSuchUpload,
  type S3Client,
} from '@aws-sdk/client-s3';
import { throwStoreError } from './attempt.ts';
import { listVersions, type ObjectVersion } from './object-versions.ts';
import { httpStatusOf, isOperationUnsupported } from './s3-errors.ts';

/**
 * What lies in a bucket behind what a plain read meets: earlier versions, delete markers, uploads that were never ended.
 * For erasing. All throw a `FailureError`, or the signal's reason.
 */
export interface VersionSweep {
  /** Returns the user metadata of one version; `undefined` when it is gone. */
  metadataOf(version: ObjectVersion, signal: AbortSignal): Promise<Readonly<Record<string, string>> | undefined>;
  /** Reads one version, a small one; `undefined` when it is gone. */
  read(version: ObjectVersion, signal: AbortSignal): Promise<Uint8Array | undefined>;
  /**
   * Removes the versions below a prefix that are no longer current, and the delete markers, of chosen keys; what is current
   * stays. Returns how many there were. @param dryRun counts only.
   */
  removeHidden(prefix: string, choose: (key: string) => boolean, dryRun: boolean, signal: AbortSignal): Promise<number>;
  /** Aborts the open multipart uploads below a prefix, of chosen keys. Returns how many there were. */
  abortUploads(prefix: string, choose: (key: string) => boolean, dryRun: boolean, signal: AbortSignal): Promise<number>;
}

export function createVersionSweep(client: S3Client, bucket: string): VersionSweep {
  const placeOf = ({ key, versionId }: ObjectVersion): { Bucket: string; Key: string; VersionId?: string } => ({
    Bucket: bucket,
    Key: key,
    ...(versionId === undefined ? {} : { VersionId: versionId }),
  });

  async function remove(version: ObjectVersion, signal: AbortSignal): Promise<void> {
    await client
      .send(new DeleteObjectCommand(placeOf(version)), { abortSignal: signal })
      .catch((error: unknown) => throwStoreError(error, signal));
  }

  return {
    metadataOf: async (version, signal) => {
      try {
        const head = await client.send(new HeadObjectCommand(placeOf(version)), { abortSignal: signal });
        return head.Metadata ?? {};
      } catch (error) {
        if (httpStatusOf(error) === 404) return undefined;
        return throwStoreError(error, signal);
      }
    },

    read: async (version, signal) => {
      try {
        const { Body } = await client.send(new GetObjectCommand(placeOf(version)), { abortSignal: signal });
        return await Body?.transformToByteArray();
      } catch (error) {
        if (httpStatusOf(error) === 404) return undefined;
        return throwStoreError(error, signal);
      }
    },

    removeHidden: async (prefix, choose, dryRun, signal) => {
      let count = 0;
      const markers: ObjectVersion[] = [];
      for await (const version of listVersions(client, bucket, prefix, signal)) {
        if (!choose(version.key) || (version.isLatest && !version.isDeleteMarker)) continue;
        count += 1;
        if (dryRun) continue;
        // Last: without the marker an earlier version would be current again.
        if (version.isLatest) markers.push(version);
        else await remove(version, signal);
      }
      for (const marker of markers) await remove(marker, signal);
      return count;
    },

    abortUploads: async (prefix, choose, dryRun, signal) => {
      let count = 0;
      let from: { KeyMarker?: string; UploadIdMarker?: string } = {};
      for (;;) {
        const page = await client
          .send(new ListMultipartUploadsCommand({ Bucket: bucket, Prefix: prefix, ...from }), { abortSignal: signal })
          .catch((error: unknown) => (isOperationUnsupported(error) ? undefined : throwStoreError(error, signal)));
        for (const { Key, UploadId } of page?.Uploads ?? []) {
          if (Key === undefined || UploadId === undefined || !choose(Key)) continue;
          count += 1;
          if (dryRun) continue;
          // Whoever began it may have ended it meanwhile.
          await client
            .send(new AbortMultipartUploadCommand({ Bucket: bucket, Key, UploadId }), { abortSignal: signal })
            .catch((error: unknown) => (error instanceof NoSuchUpload ? undefined : throwStoreError(error, signal)));
        }
        if (page?.IsTruncated !== true || page.NextKeyMarker === undefined) return count;
        from = {
          KeyMarker: page.NextKeyMarker,
          ...(page.NextUploadIdMarker === undefined ? {} : { UploadIdMarker: page.NextUploadIdMarker }),
        };
      }
    },
  };
}
