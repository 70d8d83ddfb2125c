import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { orAbort } from '../src/abort.ts';
import { createCatalogTurn, UPKEEP_EVERY_MS } from '../src/catalog/catalog-turn.ts';
import { openDuck } from '../src/catalog/duck.ts';
import { createTombstones, withoutErased } from '../src/catalog/erase-tombstones.ts';
import { sealDay } from '../src/catalog/manifest-seal.ts';
import { readOutboxDepth } from '../src/catalog/outbox.ts';
import { createOutboxReader } from '../src/catalog/outbox-reader.ts';
import type { ConfigWithStore } from '../src/config.ts';
import { FAILURES, FailureError } from '../src/failure.ts';
import { within } from '../src/lifecycle.ts';
import type { Logger } from '../src/log.ts';
import { logCatalogEvent } from '../src/operate/catalog-log.ts';
import { createCatalogMetrics } from '../src/operate/catalog-metrics.ts';
import { judgeHealth } from '../src/operate/health.ts';
import type { HealthServer } from '../src/operate/health-server.ts';
import { awaitRedis, clockKeeper } from '../src/operate/redis-at-start.ts';
import { openWorkFolder, removeLeftFolders } from '../src/operate/work-folder.ts';
import { closeRedis, connectRedis, describeRedis } from '../src/redis/connect.ts';
import { createFleetClock } from '../src/redis/fleet-clock.ts';
import { type Confirm, LeaseLostError, whileHeld } from '../src/redis/held-lease.ts';
import { redisKeys } from '../src/redis/keys.ts';
import { takePulse } from '../src/redis/pulse.ts';
import { createBucketFiles } from '../src/store/bucket-files.ts';
import { addFence } from '../src/store/fence.ts';
import { createS3Client } from '../src/store/s3-client.ts';
import { createS3Store } from '../src/store/s3-store.ts';
import { elapsed, MINUTE, SECOND } from '../src/time.ts';
import { serveHealth } from './serve-health.ts';
import { StartupError } from './startup-error.ts';

/** How often it is looked whether a flush is due. */
const LOOK_EVERY_MS = SECOND;
/** How long the others stand by after a process was killed, at most; WORKER_LOCK_SECONDS where that is less. */
const MAX_LEASE_MS = 15 * SECOND;
const CLOSE_TIMEOUT_MS = 5 * SECOND;
const STORE_CONNECTIONS = 32;
const CLOCK_EVERY_MS = 10 * SECOND;
/** How often the folders of processes that were killed are looked for. */
const TIDY_EVERY_MS = 10 * MINUTE;

/**
 * The catalog process: config → connections → parts → run → dispose.
 *
 * Several may run: one at a time works, the others stand by. Runs until `stop` aborts, then flushes what waits, for as
 * long as SHUTDOWN_GRACE_SECONDS allow. A kill at any point costs a repetition.
 *
 * @throws StartupError when the metrics port is taken, or Redis has not the database of REDIS_URL.
 */
export async function runCatalog(config: ConfigWithStore, log: Logger, stop: AbortSignal): Promise<void> {
  const { catalog, media, store: storeConfig, worker } = config;

  // Connections
  const onRedisError = (error: Error): void =>
    log.warn({ err: error, redis: describeRedis(config.redis) }, 'Redis connection error');
  const redis = connectRedis(config.redis, 'patient', 'weixin-media:catalog', onRedisError);
  const s3 = createS3Client(storeConfig, STORE_CONNECTIONS);
  let confirmLease: Confirm = () => undefined;
  // One that was frozen must not write after another has taken over.
  addFence(s3, () => confirmLease());
  await using own = await openWorkFolder(catalog.folder, 'catalog');
  const { folder } = own;
  const duck = await openDuck({ memoryBytes: catalog.memoryBytes, threads: 1, folder: join(folder, 'spill') });

  // Parts
  const clock = createFleetClock(redis, elapsed, Date.now);
  const { now } = clock;
  const syncClock = clockKeeper(clock, log);
  const keys = redisKeys(config.redis.prefix);
  const pulse = takePulse(redis, keys, elapsed);
  const { bucket, partSizeBytes } = storeConfig;
  const reader = withoutErased(createOutboxReader(redis, keys, randomUUID()), createTombstones(redis, keys));
  const metrics = createCatalogMetrics(() => redis.status === 'ready' && !pulse.isSilent);
  const files = createBucketFiles({ client: s3, bucket, partSizeBytes });
  const store = createS3Store({ client: s3, bucket, partSizeBytes });
  const turn = createCatalogTurn({
    files,
    store,
    duck,
    folder,
    reader,
    flushRows: catalog.flushRows,
    mediaTtlMs: media.ttlMs,
    closeAfterMs: catalog.closeAfterMs,
    seal: async (dt, signal) => {
      const head = await sealDay({ files, store, duck, folder, now }, dt, signal);
      if (head === undefined) return;
      const { sequence, revision, objects, bytes, unlisted, missing } = head;
      log.info({ dt, sequence, revision, objects, bytes, unlisted, missing }, 'day sealed');
      if (unlisted + missing > 0) log.warn({ dt, unlisted, missing }, 'rows and objects of the day do not agree');
    },
    now,
    observe: (event) => {
      logCatalogEvent(log, event);
      metrics.observe(event);
    },
  });

  // Run
  let ready = false;
  let lastTurnAt = elapsed();
  let isAtWork = false;
  let upkeptAt = Number.NEGATIVE_INFINITY;
  let health: HealthServer | undefined;
  const beat = setInterval(() => void syncClock().catch(() => undefined), CLOCK_EVERY_MS);
  const tidying = setInterval(() => void tidy(), TIDY_EVERY_MS);
  try {
    health = await serveHealth(worker, {
      ...judgeHealth({
        working: () => ready,
        connected: () => redis.status === 'ready',
        pulse,
        // Merging a large day takes minutes; whatever it waits for has a limit of its own.
        lastTurnAt: () => (isAtWork ? elapsed() : lastTurnAt),
        elapsed,
      }),
      metrics: () => metrics.render(),
    });
    const refused = await awaitRedis(redis, config.redis, log, stop);
    if (refused !== undefined) throw new StartupError(refused);
    await orAbort(syncClock(), stop).catch((error: unknown) =>
      log.warn({ err: error }, 'Redis does not tell its time'),
    );
    await tidy();
    ready = true;
    log.info({ bucket, metricsPort: health.port }, 'catalog started');
    let running: Promise<void> = Promise.resolve();
    while (!stop.aborted) {
      running = attempt(stop, false);
      // A Redis that is away answers nobody.
      await orAbort(running, stop).catch(() => undefined);
      lastTurnAt = elapsed();
      await sleep(LOOK_EVERY_MS, undefined, { signal: stop }).catch(() => undefined);
    }
    ready = false;
    log.info('catalog stops');
    await within(CLOSE_TIMEOUT_MS, running);
    const grace = AbortSignal.timeout(Math.max(1, worker.shutdownGraceMs));
    await within(worker.shutdownGraceMs + CLOSE_TIMEOUT_MS, attempt(grace, true));
  } catch (error) {
    if (!stop.aborted) throw error;
  } finally {
    clearInterval(beat);
    clearInterval(tidying);
    pulse.stop();
    await within(CLOSE_TIMEOUT_MS, Promise.all([health?.close()]));
    duck[Symbol.dispose]();
    s3.destroy();
    await closeRedis(redis);
    log.info('catalog stopped');
  }

  /** By the clock of this machine, as the times of its files. */
  async function tidy(): Promise<void> {
    const folders = await removeLeftFolders(catalog.folder, Date.now()).catch(() => []);
    if (folders.length > 0) log.info({ folders }, 'removed what killed processes had left');
  }

  /** Never rejects: what could not be done is done again in a later turn. */
  async function attempt(signal: AbortSignal, isLast: boolean): Promise<void> {
    try {
      const { entries, since } = await readOutboxDepth(redis, keys);
      metrics.observeOutbox(entries, since === undefined ? 0 : Math.max(0, now() - since));
      const isDue = entries >= catalog.flushRows || (since !== undefined && now() - since >= catalog.flushMs);
      const mustKeepUp = !isLast && elapsed() - upkeptAt >= UPKEEP_EVERY_MS;
      if (!isDue && !isLast && !mustKeepUp) return;
      await whileHeld(
        redis,
        keys.catalogLease,
        Math.min(worker.lockMs, MAX_LEASE_MS),
        signal,
        async (held, confirm) => {
          confirmLease = confirm;
          isAtWork = true;
          await turn.flushAll(held);
          if (!mustKeepUp) return;
          await turn.upkeep(held);
          upkeptAt = elapsed();
        },
      );
    } catch (error) {
      isAtWork = false;
      if (signal.aborted) return;
      metrics.observeFailure();
      const facts =
        error instanceof FailureError
          ? { failure: error.failure, hint: FAILURES[error.failure.code].hint }
          : { err: error };
      if (error instanceof LeaseLostError) log.warn('the lease of the catalog was lost');
      else log.error(facts, 'a turn of the catalog failed: it is tried again');
      await sleep(LOOK_EVERY_MS * 5, undefined, { signal }).catch(() => undefined);
    } finally {
      isAtWork = false;
    }
  }
}
