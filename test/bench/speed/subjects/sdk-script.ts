/**
 * What a team writes in an afternoon: a WeChat SDK, the AWS SDK and a BullMQ worker, each as it comes out of the box. Only
 * the worker's concurrency is set, since by default it is one.
 */
import { PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { Queue, Worker } from 'bullmq';
import WechatApi from 'co-wechat-api';
import { answerParent } from '../../helper-process.ts';
import { keyOf, places, type RunAnswer, type RunRequest } from './subject.ts';

const { origin, store, bucket, accessKeyId, secretAccessKey, redis, concurrency } = places();
const { hostname: host, port } = new URL(redis);
const connection = { host, port: Number(port) };
const api = new WechatApi('wx0123456789abcdef', 'secret-of-the-bench');
api.prefix = `${origin}/cgi-bin/`;
const client = new S3Client({
  endpoint: store,
  region: 'us-east-1',
  forcePathStyle: true,
  credentials: { accessKeyId, secretAccessKey },
});
const queue = new Queue('sdk-script', { connection });

answerParent<RunRequest, RunAnswer>(async ({ mediaIds }) => {
  await queue.addBulk(mediaIds.map((mediaId) => ({ name: 'media', data: { mediaId } })));
  const ended = Promise.withResolvers<void>();
  let left = mediaIds.length;
  const startedAt = performance.now();
  const worker = new Worker<{ mediaId: string }>(
    'sdk-script',
    async ({ data: { mediaId } }) => {
      const body = await api.getMedia(mediaId);
      await client.send(new PutObjectCommand({ Bucket: bucket, Key: keyOf(mediaId), Body: body }));
    },
    { connection, concurrency },
  );
  worker.on('completed', () => {
    left -= 1;
    if (left === 0) ended.resolve();
  });
  worker.on('failed', (_job, error) => ended.reject(error));
  await ended.promise;
  const seconds = (performance.now() - startedAt) / 1_000;
  await worker.close();
  return { seconds };
});
