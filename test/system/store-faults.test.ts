import { expect, test, vi } from 'vitest';
import { startEmbeddedS3 } from '../../src/demo/embedded-s3.ts';
import { eventually } from '../support/eventually.ts';
import { type Fault, type FaultProxy, type S3Operation, startFaultProxy } from '../support/fault-proxy.ts';
import { expectEachEndedOnce } from '../support/final-state.ts';
import { jobOf, lettersOf, logLines, openStack, type Stack, untilIdle } from '../support/stack.ts';
import { S3_SECRET } from './s3-door.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

const MIB = 1024 * 1024;

/** Longer than an answer takes on a busy machine; those that never come cost so much. */
const IMPATIENT = { S3_IDLE_TIMEOUT_SECONDS: '2', S3_RESPONSE_TIMEOUT_SECONDS: '2' };

interface Bench extends AsyncDisposable {
  readonly stack: Stack;
  readonly proxy: FaultProxy;
}

/** A stack whose way to the store goes wrong as it is told to. */
async function openBench(env: Readonly<Record<string, string>> = {}): Promise<Bench> {
  await using parts = new AsyncDisposableStack();
  const s3 = parts.use(await startEmbeddedS3('behind-the-proxy'));
  const proxy = parts.use(await startFaultProxy(s3.endpoint, { checkPayload: true, lists: 'uploads' }));
  const gateway = { endpoint: proxy.endpoint, accessKeyId: 'test', secretAccessKey: S3_SECRET };
  const settings = { ARCHIVE_PART_SIZE: '5MiB', WORKER_CONCURRENCY: '8', ...env };
  const stack = parts.use(await openStack({ gateway, env: settings }));
  const moved = parts.move();
  return { stack, proxy, [Symbol.asyncDispose]: () => moved.disposeAsync() };
}

const WRITES: readonly S3Operation[] = [
  'PutObject',
  'CreateMultipartUpload',
  'UploadPart',
  'CompleteMultipartUpload',
  'AbortMultipartUpload',
];

interface Case {
  readonly what: string;
  readonly fault: Fault;
  /** How often it happens, by operation. */
  readonly meets: Partial<Record<S3Operation, number>>;
  readonly env?: Readonly<Record<string, string>>;
  /** No attempt fails of it. */
  readonly harmless?: true;
}

const LOST: Fault = { type: 'lose-answer' };
const CASES: readonly Case[] = [
  {
    what: 'is slow to take and to answer everything',
    fault: { type: 'slow', everyMs: 15 },
    meets: Object.fromEntries(WRITES.map((operation) => [operation, Number.POSITIVE_INFINITY])),
    harmless: true,
  },
  {
    what: 'does what it is told and never answers',
    fault: { type: 'hang', where: 'after' },
    meets: { PutObject: 24, CreateMultipartUpload: 2, UploadPart: 2, CompleteMultipartUpload: 2 },
    env: IMPATIENT,
  },
  {
    what: 'breaks connections in the middle of a body',
    fault: { type: 'cut-request', afterBytes: 1_000 },
    meets: { PutObject: 90, UploadPart: 12, CompleteMultipartUpload: 4 },
  },
  {
    what: 'does what it is told and loses the answer',
    fault: LOST,
    meets: {
      PutObject: 90,
      CreateMultipartUpload: 2,
      UploadPart: 6,
      CompleteMultipartUpload: 4,
      AbortMultipartUpload: 2,
    },
  },
];

test.each(CASES)('a store that $what gets every media once, whole, and keeps no part of any', async (row) => {
  const { fault, meets, env = {}, harmless = false } = row;
  await using bench = await openBench(env);
  const { stack, proxy } = bench;
  const media = [
    ...stack.addMedia(220, { sizeBytes: 4_000 }),
    ...stack.addMedia(4, { format: 'mp4', sizeBytes: 11 * MIB }),
  ];
  const dead = stack.addMedia(20);
  for (const { mediaId } of dead)
    stack.simulator.arm({ endpoint: 'media', mediaId, action: { type: 'errcode', errcode: 40004 } });
  const workers = [stack.worker(), stack.worker()];
  await Promise.all(workers.map((worker) => worker.said('worker started')));
  const armed = Object.entries(meets).map(([operation, times]) => proxy.arm(operation as S3Operation, fault, times));
  await stack.queue.door.admit([...media, ...dead].map(jobOf));
  await untilIdle(stack, 120_000);
  expect(armed[0]?.met).toBeGreaterThan(0);
  if (harmless) expect(workers.flatMap((worker) => logLines(worker, 'failed'))).toEqual([]);
  await expectEachEndedOnce(stack, { saved: media, dead, workers, openUploads: proxy.openUploads() });
});

test('a store that answers nothing at all holds no slot for ever, and gets everything once it does', async () => {
  await using bench = await openBench({ S3_IDLE_TIMEOUT_SECONDS: '1', S3_RESPONSE_TIMEOUT_SECONDS: '1' });
  const { stack, proxy } = bench;
  const media = stack.addMedia(220, { sizeBytes: 4_000 });
  const workers = [stack.worker(), stack.worker()];
  await Promise.all(workers.map((worker) => worker.said('worker started')));
  const silence = proxy.arm(() => true, { type: 'hang', where: 'before' });
  await stack.queue.door.admit(media.map(jobOf));
  // More than it has slots: they have come free.
  await eventually(() =>
    workers.every((worker) => logLines(worker, 'failed, will be tried again').length > 8) ? true : undefined,
  );
  silence.disarm();
  expect(await lettersOf(stack)).toEqual([]);
  await untilIdle(stack, 120_000);
  await expectEachEndedOnce(stack, { saved: media, workers, openUploads: proxy.openUploads() });
});
