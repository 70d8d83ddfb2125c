import { Secret } from '../../src/secret.ts';
import { createBucketFiles } from '../../src/store/bucket-files.ts';
import { createS3Client } from '../../src/store/s3-client.ts';

export interface MoveFile {
  readonly bucket: string;
  readonly endpoint: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly partSizeBytes: number;
  readonly key: string;
  readonly from: string;
  readonly to: string;
}

/** In a process of its own: puts a file into a bucket, takes it out again, and tells the memory it had at most, in bytes. */
process.once('message', async ({ accessKeyId, secretAccessKey, key, from, to, ...place }: MoveFile) => {
  const credentials = { accessKeyId, secretAccessKey: new Secret(secretAccessKey) };
  const client = createS3Client({ ...place, forcePathStyle: true, credentials }, 4);
  const files = createBucketFiles({ ...place, client });
  const never = new AbortController().signal;
  const results = [
    await files.putFile(key, from, 'application/octet-stream', never),
    await files.getFile(key, to, never),
  ];
  client.destroy();
  process.send?.({ results, peakBytes: process.resourceUsage().maxRSS * 1024 });
  process.disconnect();
});
