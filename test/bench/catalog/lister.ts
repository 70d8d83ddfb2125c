import { join } from 'node:path';
import { appsOf, firstDay } from '../../../src/catalog/days.ts';
import { objectsOf, writeListing } from '../../../src/catalog/reconcile.ts';
import { Secret } from '../../../src/secret.ts';
import { createBucketFiles } from '../../../src/store/bucket-files.ts';
import { createS3Client } from '../../../src/store/s3-client.ts';
import { SECOND } from '../../../src/time.ts';
import { answerParent } from '../helper-process.ts';
import { processMemory } from '../memory/process-memory.ts';

export interface ListerAsk {
  readonly url: string;
  readonly directory: string;
}

export interface ListerAnswer {
  readonly objects: number;
  readonly seconds: number;
  readonly peakBytes: number;
}

/** Lists what a day holds, as its closing does. */
answerParent<ListerAsk, ListerAnswer>(async ({ url, directory }) => {
  const credentials = { accessKeyId: 'bench', secretAccessKey: new Secret('bench') };
  const partSizeBytes = 8 * 1024 * 1024;
  const client = createS3Client(
    { bucket: 'bench', endpoint: url, partSizeBytes, forcePathStyle: true, credentials },
    4,
  );
  const files = createBucketFiles({ client, bucket: 'bench', partSizeBytes });
  const { signal } = new AbortController();
  const startedAt = performance.now();
  const dt = await firstDay(files, signal);
  if (dt === undefined) throw new Error('no days');
  let objects = 0;
  for await (const app of appsOf(files, signal))
    objects += await writeListing(objectsOf({ files }, dt, app, signal), join(directory, 'listing.ndjson'));
  client.destroy();
  return {
    objects,
    seconds: (performance.now() - startedAt) / SECOND,
    peakBytes: processMemory(process.pid).peakBytes,
  };
});
