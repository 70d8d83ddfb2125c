/** What one writes with the AWS SDK and care: GET, SHA-256 as metadata, PutObject with Content-MD5. No queue. */
import { createHash } from 'node:crypto';
import { PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { Pool } from 'undici';
import { keyOf, mediaPath, places, serveLoop } from './subject.ts';

const { origin, store, bucket, accessKeyId, secretAccessKey, concurrency } = places();
const from = new Pool(origin, { connections: concurrency });
const client = new S3Client({
  endpoint: store,
  region: 'us-east-1',
  forcePathStyle: true,
  credentials: { accessKeyId, secretAccessKey },
  requestChecksumCalculation: 'WHEN_REQUIRED',
  requestHandler: { httpAgent: { maxSockets: concurrency, keepAlive: true } },
});

serveLoop(concurrency, async (mediaId) => {
  const answer = await from.request({ path: mediaPath(mediaId), method: 'GET' });
  if (answer.statusCode !== 200) throw new Error(`GET ${answer.statusCode}`);
  const body = Buffer.from(await answer.body.arrayBuffer());
  const sha256 = createHash('sha256').update(body).digest('hex');
  await client.send(
    new PutObjectCommand({
      Bucket: bucket,
      Key: keyOf(mediaId),
      Body: body,
      ContentType: 'image/jpeg',
      ContentMD5: createHash('md5').update(body).digest('base64'),
      Metadata: { sha256 },
    }),
  );
});
