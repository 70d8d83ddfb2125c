import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { CreateMultipartUploadCommand } from '@aws-sdk/client-s3';
import { expect, test } from 'vitest';
import { openDuck } from '../../src/catalog/duck.ts';
import { createWanted, type Wanted } from '../../src/catalog/erase-wanted.ts';
import { startEmbeddedS3 } from '../../src/demo/embedded-s3.ts';
import { mediaJobId } from '../../src/media/media-job.ts';
import { createErasing } from '../../src/operate/erasing.ts';
import { laneOf } from '../../src/queue/lane.ts';
import { Secret } from '../../src/secret.ts';
import { createVersionSweep } from '../../src/store/version-sweep.ts';
import { catalogRows, filesOf } from '../support/catalog.ts';
import { eventually } from '../support/eventually.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { APP_ID } from '../support/jobs.ts';
import { jobsOf, needlesOf, OPERATOR_KEY, type Person } from '../support/person.ts';
import { openStack, type Stack } from '../support/stack.ts';
import { traces } from '../support/traces.ts';

const HMAC = { ARCHIVE_OPEN_ID: 'hmac', ARCHIVE_OPEN_ID_KEY: OPERATOR_KEY };
const REDIS = { ownRedis: true, redisArguments: ['--rdbcompression', 'no'] };
const OPEN_ID = 'oVictimVictimVictimVictim_-01';
const never = new AbortController().signal;

/** Erases as the command does, and is broken off when it has told so many steps. Returns whether it was. */
async function eraseUpTo(stack: Stack, wanted: Wanted, steps: number): Promise<boolean> {
  const { redis, queue, opened, config } = stack;
  const folder = join(stack.folder, `erase-${crypto.randomUUID()}`);
  await mkdir(folder);
  using duck = await openDuck({ memoryBytes: 128 * 1024 * 1024, threads: 1, folder });
  const erasing = createErasing(
    {
      redis,
      keys: queue.keys,
      files: filesOf(stack),
      sweep: createVersionSweep(stack.s3Client, stack.s3.bucket),
      store: opened.store,
      duck,
      folder,
      flushRows: 1_000,
      mediaTtlMs: config.media.ttlMs,
      now: Date.now,
      waitMs: 1_000,
      onKey: () => undefined,
    },
    wanted,
  );
  let told = 0;
  try {
    await erasing.search(never);
    await erasing.remove(async () => {
      told += 1;
      if (told === steps) throw new Error('killed');
    }, never);
    return false;
  } catch (error) {
    if (!(error instanceof Error) || error.message !== 'killed') throw error;
    return true;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

// Of what waits, and of what is archived but has no row yet, the catalog says only that it was accepted, and not of whom.
test('broken off after any step, an erasure finds again what names no person', async () => {
  await using stack = await openStack({ ...REDIS, env: HMAC });
  const who = (): Wanted => createWanted(APP_ID, OPEN_ID, new Secret(OPERATOR_KEY));
  const isArchived = async (mediaId: string): Promise<boolean> =>
    (await stack.redis.exists(stack.queue.keys.archived(mediaJobId({ appId: APP_ID, mediaId })))) === 1;
  const isDelayed = async (): Promise<boolean> => (await stack.queue.lanes.lane(laneOf(APP_ID)).counts()).delayed === 1;
  // Rows of what was accepted, reports, jobs, objects, manifests: the kill comes before the next step.
  for (const steps of [1, 3, 4, 5, 6]) {
    const victim: Person = { openId: OPEN_ID, media: stack.addMedia(2) };
    const [archived = '', waiting = ''] = victim.media.map(({ mediaId }) => mediaId);
    stack.simulator.arm({ endpoint: 'media', mediaId: waiting, action: { type: 'errcode', errcode: -1 } });
    const catalog = stack.catalog({ CATALOG_FLUSH_SECONDS: '0.1' });
    await stack.queue.door.admit(jobsOf(victim));
    await eventually(async () => ((await catalogRows(stack, 'accepted')).length === 2 ? true : undefined));
    await catalog.stop();
    const worker = stack.worker();
    await eventually(async () => ((await isArchived(archived)) && (await isDelayed()) ? true : undefined));
    await worker.stop();

    expect(await eraseUpTo(stack, who(), steps)).toBe(true);
    await eraseUpTo(stack, who(), Number.POSITIVE_INFINITY);
    const { openId: _, ...byMedia } = needlesOf(victim);
    const left = (await traces(stack, byMedia)).filter((where) => !where.includes('of Redis'));
    expect(left, `broken off after step ${steps}`).toEqual([]);
  }
}, 240_000);

test('uploads of the catalog and of derived files that were never ended are removed', async () => {
  await using s3 = await startEmbeddedS3('behind-the-proxy');
  await using proxy = await startFaultProxy(s3.endpoint, { lists: 'uploads' });
  const gateway = { endpoint: proxy.endpoint, accessKeyId: 'test', secretAccessKey: 'the-secret-key-of-the-store' };
  await using stack = await openStack({ gateway, env: HMAC });
  const [first, second] = ['First-media-of-somebody', 'Other-media-of-somebody'];
  const other = 'wxfedcba9876543210';
  const ours = [
    `catalog/accepted/dt=2026-06-15/merged-0123456789ab-0.parquet`,
    `catalog/media/dt=2026-06-15/app=${APP_ID}/merged-0123456789ab-0.parquet`,
    `derived/app=${APP_ID}/kind=voice/dt=2026-06-15/${first}/voice.mp3`,
    'manifests/dt=2026-06-15/000000000001-objects.ndjson.gz',
  ];
  const others = [
    `catalog/media/dt=2026-06-15/app=${other}/merged-0123456789ab-0.parquet`,
    `derived/app=${APP_ID}/kind=voice/dt=2026-06-15/${second}/voice.mp3`,
    `media/app=${APP_ID}/kind=voice/dt=2026-06-15/${second}.amr`,
  ];
  for (const Key of [...ours, ...others])
    await stack.s3Client.send(new CreateMultipartUploadCommand({ Bucket: stack.s3.bucket, Key }));

  const who = ['erase', '--app', APP_ID, '--media-id', first, '--json'];
  const told = await stack.command([...who, '--dry-run']);
  expect(told.rows().at(-1)).toMatchObject({ wouldRemove: { uploads: 4 } });
  const done = await stack.command(who);
  expect(done.rows().at(-1)).toMatchObject({ status: 'complete', removed: { uploads: 4 } });
  expect(proxy.openUploads().toSorted()).toEqual(others.toSorted());
}, 60_000);
