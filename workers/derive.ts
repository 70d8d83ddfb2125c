import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { orAbort } from '../src/abort.ts';
import { daysBetween } from '../src/catalog/days.ts';
import {
  type DeriveSource,
  derivedKey,
  derivedMetadata,
  derivedRowOf,
  writeSources,
} from '../src/catalog/derived-files.ts';
import type { DerivedRow } from '../src/catalog/derived-table.ts';
import { openDuck } from '../src/catalog/duck.ts';
import { createTombstones } from '../src/catalog/erase-tombstones.ts';
import { createOutbox } from '../src/catalog/outbox.ts';
import type { ConfigWithStore } from '../src/config.ts';
import { type DerivedFile, deriveFile } from '../src/derive/derive.ts';
import { DERIVE_FAILURES } from '../src/derive/derive-failure.ts';
import { findFfmpeg } from '../src/derive/ffmpeg.ts';
import { RECIPES, type RecipeName, SOURCES, sourceOfType } from '../src/derive/recipes.ts';
import { FAILURES, FailureError } from '../src/failure.ts';
import { within } from '../src/lifecycle.ts';
import type { Logger } from '../src/log.ts';
import { MEDIA_VARIANTS, mediaJobId } from '../src/media/media-job.ts';
import { awaitRedis } from '../src/operate/redis-at-start.ts';
import { openWorkFolder } from '../src/operate/work-folder.ts';
import { closeRedis, connectRedis, describeRedis } from '../src/redis/connect.ts';
import { createFleetClock } from '../src/redis/fleet-clock.ts';
import { LeaseLostError, whileHeld } from '../src/redis/held-lease.ts';
import { redisKeys } from '../src/redis/keys.ts';
import { createBucketFiles } from '../src/store/bucket-files.ts';
import { dayOf } from '../src/store/object-keys.ts';
import { createS3Client } from '../src/store/s3-client.ts';
import { DAY, elapsed, HOUR, iso, SECOND } from '../src/time.ts';
import { StartupError } from './startup-error.ts';

const LEASE_MS = 15 * SECOND;
const STORE_CONNECTIONS = 8;
/** What may come out well another time is tried again after so long. */
const AGAIN_AFTER_MS = HOUR;
const CLOSE_TIMEOUT_MS = 5 * SECOND;

/**
 * The process that makes files of archived media: config → connections → parts → run → dispose. Optional.
 *
 * It reads the catalog and works on one media at a time, at the lowest priority, so that archiving is never delayed.
 * Several may run: one at a time works. A kill at any point costs a repetition.
 *
 * @param since the first day to look at, `YYYY-MM-DD`; absent: media that the catalog may still get rows of.
 * @throws StartupError when there is no ffmpeg, or Redis has not the database of REDIS_URL.
 */
export async function runDerive(
  config: ConfigWithStore,
  log: Logger,
  stop: AbortSignal,
  since?: string,
): Promise<void> {
  const { catalog, media, store: storeConfig, worker } = config;
  const found = await findFfmpeg({}, stop);
  if (!found.ok) throw new StartupError(`${found.why}: ${DERIVE_FAILURES['tool-missing'].hint}`);
  const { ffmpeg } = found;

  // Connections
  const onRedisError = (error: Error): void =>
    log.warn({ err: error, redis: describeRedis(config.redis) }, 'Redis connection error');
  const redis = connectRedis(config.redis, 'patient', 'weixin-media:derive', onRedisError);
  const s3 = createS3Client(storeConfig, STORE_CONNECTIONS);
  await using own = await openWorkFolder(catalog.folder, 'derive');
  const { folder } = own;
  const duck = await openDuck({ memoryBytes: catalog.memoryBytes, threads: 1, folder: join(folder, 'spill') });

  // Parts
  const { now } = createFleetClock(redis, elapsed, Date.now);
  const keys = redisKeys(config.redis.prefix);
  const files = createBucketFiles({ client: s3, bucket: storeConfig.bucket, partSizeBytes: storeConfig.partSizeBytes });
  const outbox = createOutbox(redis, keys, now);
  const tombstones = createTombstones(redis, keys);
  /** When what failed may be tried again, by the stopwatch; and what was made, until the catalog has its row. */
  const notBefore = new Map<string, number>();

  // Run
  try {
    const refused = await awaitRedis(redis, config.redis, log, stop);
    if (refused !== undefined) throw new StartupError(refused);
    log.info({ ffmpeg: ffmpeg.version, bucket: storeConfig.bucket }, 'derive started');
    while (!stop.aborted) {
      // A Redis that is away answers nobody.
      await orAbort(turn(), stop).catch(() => undefined);
      await sleep(catalog.flushMs, undefined, { signal: stop }).catch(() => undefined);
    }
  } catch (error) {
    if (!stop.aborted) throw error;
  } finally {
    duck[Symbol.dispose]();
    s3.destroy();
    await within(CLOSE_TIMEOUT_MS, closeRedis(redis));
    log.info('derive stopped');
  }

  /** Never rejects: what could not be done is done again in a later turn. */
  async function turn(): Promise<void> {
    try {
      await whileHeld(redis, keys.deriveLease, Math.min(worker.lockMs, LEASE_MS), stop, async (held) => {
        const first = since ?? dayOf(iso(now() - media.ttlMs - DAY));
        for (const dt of [...daysBetween(first, dayOf(iso(now())))].toReversed()) await deriveDay(dt, held);
      });
    } catch (error) {
      if (stop.aborted) return;
      if (error instanceof LeaseLostError) return log.warn('the lease was lost');
      const facts =
        error instanceof FailureError
          ? { failure: error.failure, hint: FAILURES[error.failure.code].hint }
          : { err: error };
      log.error(facts, 'a turn failed: it is tried again');
    }
  }

  async function deriveDay(dt: string, signal: AbortSignal): Promise<void> {
    const work = await mkdtemp(join(folder, 'day-'));
    try {
      const lines = join(work, 'sources.ndjson');
      if (!(await writeSources({ files, duck, folder: work }, dt, Object.keys(SOURCES), lines, signal))) return;
      for await (const line of createInterface({ input: createReadStream(lines) })) {
        signal.throwIfAborted();
        await derive(JSON.parse(line) as DeriveSource, signal);
      }
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }

  async function derive(source: DeriveSource, signal: AbortSignal): Promise<void> {
    const { key, sniffed_type: mediaType } = source;
    const recipes = sourceOfType(mediaType)?.recipes ?? [];
    if (recipes.every((recipe) => source.recipes.includes(recipe))) return;
    if ((notBefore.get(key) ?? 0) > elapsed()) return;
    const before = await madeBefore(source, recipes, signal);
    if (await isErased(source)) return;
    if (before.length === recipes.length) {
      for (const row of before) await outbox.derived(row);
      notBefore.set(key, elapsed() + AGAIN_AFTER_MS);
      return;
    }
    const work = await mkdtemp(join(folder, 'media-'));
    try {
      const inputPath = join(work, 'media');
      const fetched = await files.getFile(key, inputPath, signal);
      if (!fetched.ok) throw new FailureError(fetched.failure);
      // Erased, or removed by hand: verify tells.
      if (!fetched.value) return;
      if ((await sha256OfFile(inputPath)) !== source.sha256) {
        notBefore.set(key, elapsed() + AGAIN_AFTER_MS);
        log.error({ key }, 'an object is not what the catalog says: see verify');
        return;
      }
      const derived = await deriveFile({ inputPath, mediaType, folder: work }, { ffmpeg }, signal);
      if (!derived.ok) {
        const { code, detail } = derived.failure;
        const { again, hint } = DERIVE_FAILURES[code];
        notBefore.set(key, again === 'perhaps' ? elapsed() + AGAIN_AFTER_MS : Number.POSITIVE_INFINITY);
        log.warn({ key, code, detail, hint }, 'nothing could be made of a media');
        return;
      }
      for (const file of derived.files) {
        const row = rowOf(source, file);
        const put = await files.putFile(row.key, file.path, file.contentType, signal, derivedMetadata(row));
        if (!put.ok) throw new FailureError(put.failure);
        // An erasure that has looked by now finds no more of it.
        if (await isErased(source)) {
          const removed = await files.removeVersions(row.key, signal);
          if (!removed.ok) throw new FailureError(removed.failure);
          return;
        }
        await outbox.derived(row);
        log.info({ key: row.key, source: key, recipe: row.recipe, sizeBytes: row.size_bytes }, 'derived');
      }
      // Until the catalog has the row.
      notBefore.set(key, elapsed() + AGAIN_AFTER_MS);
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }

  /** What lies in the bucket of these recipes. Whoever was killed has not told of it; and a row says what its object says. */
  async function madeBefore(
    source: DeriveSource,
    recipes: readonly RecipeName[],
    signal: AbortSignal,
  ): Promise<DerivedRow[]> {
    const rows: DerivedRow[] = [];
    for (const recipe of recipes) {
      const head = await files.head(derivedKey(source, RECIPES[recipe].name), signal);
      if (!head.ok) throw new FailureError(head.failure);
      const row = head.value === undefined ? undefined : derivedRowOf(head.value);
      const isOfSource = row?.source_key === source.key && row.source_sha256 === source.sha256;
      if (isOfSource && row.recipe === recipe) rows.push(row);
    }
    return rows;
  }

  async function isErased({ app_id: appId, media_id: mediaId, variant }: DeriveSource): Promise<boolean> {
    const rendering = MEDIA_VARIANTS.find((one) => one === variant);
    const id = mediaJobId({ appId, mediaId, ...(rendering === undefined ? {} : { variant: rendering }) });
    const [erased] = await tombstones.has([id]);
    return erased === true;
  }

  function rowOf(source: DeriveSource, file: DerivedFile): DerivedRow {
    return {
      app_id: source.app_id,
      media_id: source.media_id,
      variant: source.variant ?? null,
      name: file.name,
      key: derivedKey(source, file.name),
      size_bytes: file.sizeBytes,
      sha256: file.sha256,
      content_type: file.contentType,
      source_key: source.key,
      source_sha256: source.sha256,
      recipe: file.recipe,
      tool: file.tool,
      received_at: source.received_at,
      derived_at: iso(now()),
    };
  }
}

async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) hash.update(chunk);
  return hash.digest('hex');
}
