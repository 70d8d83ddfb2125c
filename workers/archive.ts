import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { orAbort, untilAborted } from '../src/abort.ts';
import { archiveMedia } from '../src/archive/archive-media.ts';
import { BodyBuffers } from '../src/archive/body-buffers.ts';
import { ByteBudget } from '../src/archive/byte-budget.ts';
import { forgetMedia } from '../src/archive/forget-media.ts';
import { recoverMedia } from '../src/archive/recover-media.ts';
import { announceTo, createOutbox } from '../src/catalog/outbox.ts';
import type { ConfigWithStore } from '../src/config.ts';
import { createDeadLetterIndex } from '../src/dead-letter/dead-letter-index.ts';
import { createDeadLetters } from '../src/dead-letter/dead-letters.ts';
import { FAILURES } from '../src/failure.ts';
import { tellParentReady, within } from '../src/lifecycle.ts';
import type { Logger } from '../src/log.ts';
import { createCodeRedeemer } from '../src/operate/code-redeemer.ts';
import { judgeHealth } from '../src/operate/health.ts';
import type { HealthServer } from '../src/operate/health-server.ts';
import { logJobEvent } from '../src/operate/job-log.ts';
import { createMetrics } from '../src/operate/metrics.ts';
import { awaitRedis, clockKeeper } from '../src/operate/redis-at-start.ts';
import { createArchivedMarkers } from '../src/queue/archived-marker.ts';
import { createDispatcher } from '../src/queue/dispatcher.ts';
import { createDoor } from '../src/queue/door.ts';
import { createFleet, HEARTBEAT_MS } from '../src/queue/fleet.ts';
import { createGates } from '../src/queue/gates.ts';
import type { JobEvent } from '../src/queue/job-events.ts';
import { createLockKeeper } from '../src/queue/lock-keeper.ts';
import { openLanes } from '../src/queue/open-lanes.ts';
import { readQueueStats } from '../src/queue/queue-stats.ts';
import { createRunJob } from '../src/queue/run-job.ts';
import { createSettle } from '../src/queue/settle.ts';
import { createThroughput } from '../src/queue/throughput.ts';
import { closeRedis, connectRedis, describeRedis } from '../src/redis/connect.ts';
import { createFleetClock } from '../src/redis/fleet-clock.ts';
import { redisKeys } from '../src/redis/keys.ts';
import { takePulse } from '../src/redis/pulse.ts';
import { createBucketFiles } from '../src/store/bucket-files.ts';
import { addContentMd5 } from '../src/store/content-md5.ts';
import { type PayloadCheck, probePayloadCheck } from '../src/store/probe.ts';
import { createDirectPut } from '../src/store/put-object.ts';
import { readBackStore } from '../src/store/read-back.ts';
import { createS3Client, DEFAULT_S3_TIMEOUTS } from '../src/store/s3-client.ts';
import { createS3Store } from '../src/store/s3-store.ts';
import { elapsed, iso, SECOND } from '../src/time.ts';
import { VERSION } from '../src/version.ts';
import { createApiHosts } from '../src/weixin/api-hosts.ts';
import { createAccountBook } from '../src/weixin/credentials/account-book.ts';
import { createAuthorizations } from '../src/weixin/credentials/authorizations.ts';
import type { TokenRefresh } from '../src/weixin/credentials/issued-token.ts';
import { createTokenSource } from '../src/weixin/credentials/token-source.ts';
import { createHttpPool } from '../src/weixin/http.ts';
import { createVideoDownloader } from '../src/weixin/video-url.ts';
import { createWeixinClient } from '../src/weixin/weixin-client.ts';
import { serveHealth } from './serve-health.ts';
import { StartupError } from './startup-error.ts';

const QUEUE_STATS_MAX_AGE_MS = 10 * SECOND;
const STORE_PROBE_TIMEOUT_MS = 20 * SECOND;
const STORE_PROBE_PAUSE_MS = 30 * SECOND;
const CLOSE_TIMEOUT_MS = 5 * SECOND;
/** Of the memory budget, what may be kept for bodies that are to come. */
const IDLE_SHARE = 1 / 8;

/**
 * The archive worker: config → connections → parts → run → dispose.
 *
 * Runs until `stop` aborts, then hands back what it has not finished. Resolves within SHUTDOWN_GRACE_SECONDS and a few
 * seconds more, also when Redis is gone.
 *
 * @throws StartupError when the bucket is missing, lies in another region or refuses us, or the metrics port is taken.
 */
export async function runArchiveWorker(config: ConfigWithStore, log: Logger, stop: AbortSignal): Promise<void> {
  const random = Math.random;
  const { accounts, components, media, store: storeConfig, weixin, worker } = config;
  const workerId = randomUUID();

  // Connections
  const onRedisError = (error: Error): void =>
    log.warn({ err: error, redis: describeRedis(config.redis) }, 'Redis connection error');
  const redis = connectRedis(config.redis, 'patient', 'weixin-media:worker', onRedisError);
  const blocking = connectRedis(config.redis, 'blocking', 'weixin-media:worker:wait', onRedisError);
  const s3 = createS3Client(storeConfig, worker.concurrency * 2);
  const http = createHttpPool(weixin.timeouts, worker.concurrency);
  const videos = createVideoDownloader({
    timeouts: weixin.timeouts,
    maxBytes: media.maxBytes,
    allowHosts: weixin.downloadAllowHosts,
  });

  // Parts
  const clock = createFleetClock(redis, elapsed, Date.now);
  const { now } = clock;
  const syncClock = clockKeeper(clock, log);
  const keys = redisKeys(config.redis.prefix);
  const pulse = takePulse(redis, keys, elapsed);
  const rescueEveryMs = worker.lockMs / 2;
  const lanes = openLanes(redis, config.redis.prefix, { lockMs: worker.lockMs, rescueEveryMs, now });
  const gates = createGates(redis, keys, now, elapsed, random);
  const markers = createArchivedMarkers(redis, keys, now);
  const throughput = createThroughput(redis, keys, now);
  const fleet = createFleet(redis, keys, now);
  const budget = new ByteBudget(worker.memoryBudgetBytes);
  /** What the store checks; unknown until it has answered. */
  let payloadCheck: PayloadCheck | undefined;
  const { bucket, partSizeBytes } = storeConfig;
  const direct = createDirectPut({
    client: s3,
    bucket,
    timeouts: storeConfig.timeouts ?? DEFAULT_S3_TIMEOUTS,
    connections: worker.concurrency,
    needsMd5: () => payloadCheck !== undefined && payloadCheck !== 'sha256',
    onUnaskedContinue: () => log.warn('the store says 100 Continue unasked: writing an object costs more CPU time so'),
  });
  const s3Store = createS3Store({ client: s3, bucket, partSizeBytes, put: direct.put });
  const store = readBackStore(s3Store, () => payloadCheck === undefined || payloadCheck === 'nothing');
  const announce = announceTo(createOutbox(redis, keys, now));
  const deadLetters = createDeadLetters(store, createDeadLetterIndex(redis, keys, now), announce, now);
  const hosts = createApiHosts(weixin.apiBaseUrls, elapsed);
  const book = createAccountBook(accounts, components, createAuthorizations(redis, keys));
  const appIds = (): string[] => book.list().map(({ appId }) => appId);

  const metrics = createMetrics({
    inFlight: () => dispatcher.inFlight,
    budget: () => budget,
    redisUp: () => redis.status === 'ready' && !pulse.isSilent,
    queue: cached(QUEUE_STATS_MAX_AGE_MS, () => readQueueStats(redis, keys, lanes, appIds())),
    gates: () => gates.list(),
    mediaTtlMs: media.ttlMs,
    now,
  });
  const observe = (event: JobEvent): void => {
    logJobEvent(log, event);
    metrics.observeJob(event);
    if (event.type === 'archived') {
      throughput.count(event.job.appId, 'archived', 1);
      throughput.count(event.job.appId, 'bytes', event.object.sizeBytes);
    } else if (event.type === 'dead') throughput.count(event.appId, 'dead', 1);
    else if (event.type === 'retry' || event.type === 'wait') throughput.count(event.job.appId, event.type, 1);
  };
  const onRefresh = (refresh: TokenRefresh): void => {
    metrics.observeToken(refresh);
    if (refresh.result === 'failed') log.warn(refresh, 'access_token could not be had');
    else log.info(refresh, 'access_token refreshed');
  };

  const tokens = createTokenSource({ redis, keys, endpoint: { hosts, http }, now, random, onRefresh });
  // Ingest does it at once; this is for what it could not do.
  const codes = createCodeRedeemer(tokens, components, log, stop);
  const client = createWeixinClient({
    accounts: book,
    tokens,
    hosts,
    http,
    videos,
    timeouts: weixin.timeouts,
    maxBytes: media.maxBytes,
    random,
  });
  const parts = {
    weixin: client,
    store,
    budget,
    buffers: new BodyBuffers(worker.memoryBudgetBytes * IDLE_SHARE),
    partSizeBytes: storeConfig.partSizeBytes,
    maxBytes: media.maxBytes,
    now,
  };
  const recover = recoverMedia.bind(undefined, store);
  const forget = forgetMedia.bind(undefined, store, createBucketFiles({ client: s3, bucket, partSizeBytes }));
  const settle = createSettle({ markers, deadLetters, recover, forget, mediaTtlMs: media.ttlMs, now, observe });
  const door = createDoor({
    redis,
    keys,
    lanes,
    mediaTtlMs: media.ttlMs,
    openId: media.openId,
    waitReplicas: config.redis.waitReplicas ?? 0,
    now,
  });
  const runJob = createRunJob({
    attempt: (job, attempt, signal) => archiveMedia({ ...parts, attempt }, job, signal),
    recover,
    settle,
    markers,
    gates,
    door,
    openId: media.openId,
    mediaTtlMs: media.ttlMs,
    now,
    random,
    observe,
  });
  const locks = createLockKeeper(worker.lockMs, (error) => observe({ type: 'fault', where: 'locks', error }));
  const { concurrency } = worker;
  const dispatcher = createDispatcher({
    redis,
    blocking,
    keys,
    lanes,
    gates,
    fleet,
    locks,
    runJob,
    apps: { has: book.has, list: appIds, refresh: refreshBook },
    concurrency,
    rescueEveryMs,
    now,
    elapsed,
    observe,
  });

  // Run
  let ready = false;
  let health: HealthServer | undefined;
  const startedAt = iso(now());
  const me = { id: workerId, host: hostname(), pid: process.pid, version: VERSION, startedAt, concurrency };
  const beat = setInterval(() => {
    if (redis.status !== 'ready') return;
    fleet.beat({ ...me, inFlight: dispatcher.inFlight }).catch(() => undefined);
    throughput.flush().catch(() => undefined);
    syncClock().catch(() => undefined);
    codes.redeem();
  }, HEARTBEAT_MS);

  try {
    health = await serveHealth(worker, {
      ...judgeHealth({
        working: () => ready,
        connected: () => redis.status === 'ready',
        pulse,
        lastTurnAt: () => dispatcher.lastTurnAt,
        elapsed,
      }),
      metrics: () => metrics.render(),
    });
    const refused = await awaitRedis(redis, config.redis, log, stop);
    if (refused !== undefined) throw new StartupError(refused);
    await orAbort(syncClock(), stop).catch((error: unknown) =>
      log.warn({ err: error }, 'Redis does not tell its time'),
    );
    await checkStore();
    await orAbort(refreshBook(), stop);
    checkAccounts();
    // A Redis that is full takes no note of us, and may still give out jobs.
    await orAbort(fleet.beat({ ...me, inFlight: 0 }), stop).catch((error: unknown) =>
      log.warn({ err: error }, 'Redis takes no note of this worker'),
    );
    const running = dispatcher.run();
    ready = true;
    log.info(
      {
        workerId,
        version: VERSION,
        apps: appIds().length,
        concurrency,
        bucket: storeConfig.bucket,
        metricsPort: health.port,
      },
      'worker started',
    );
    tellParentReady();
    await untilAborted(stop);
    ready = false;
    log.info({ inFlight: dispatcher.inFlight, graceMs: worker.shutdownGraceMs }, 'worker stops');
    await dispatcher.stop(worker.shutdownGraceMs);
    await within(CLOSE_TIMEOUT_MS, running);
  } catch (error) {
    // Stopped before it was ready: nothing to hand back.
    if (!stop.aborted) throw error;
  } finally {
    clearInterval(beat);
    pulse.stop();
    locks.stop();
    await within(CLOSE_TIMEOUT_MS, Promise.all([throughput.flush(), fleet.leave(workerId)]));
    await within(
      CLOSE_TIMEOUT_MS,
      Promise.all([http.close(), videos.close(), direct.close(), health?.close(), lanes.close()]),
    );
    s3.destroy();
    blocking.disconnect();
    await closeRedis(redis);
    log.info('worker stopped');
  }

  /** What is known of authorisations stays while Redis does not tell; the jobs of others go on. */
  async function refreshBook(): Promise<void> {
    try {
      for (const appId of await book.refresh()) {
        // What the platform that it has left said of it counts no more.
        if (gates.closed(appId)?.reason !== 'authorization-withdrawn' || !(await gates.open(appId))) continue;
        observe({ type: 'gate-opened', appId });
      }
    } catch (error) {
      observe({ type: 'fault', where: 'accounts', error });
    }
  }

  async function checkStore(): Promise<void> {
    const limit = AbortSignal.any([stop, AbortSignal.timeout(STORE_PROBE_TIMEOUT_MS)]);
    const probed = await probePayloadCheck(s3, storeConfig.bucket, limit);
    if (typeof probed === 'string') return useStore(probed);
    const { code, detail } = probed;
    const where = `bucket ${storeConfig.bucket}${storeConfig.endpoint === undefined ? '' : ` at ${storeConfig.endpoint}`}`;
    if (code === 'store-bucket-missing' || code === 'store-denied' || code === 'store-region-wrong') {
      throw new StartupError(`${where}: ${FAILURES[code].hint}${detail === undefined ? '' : ` (${detail})`}`);
    }
    log.warn({ failure: probed, hint: FAILURES[code].hint }, `${where} can't be reached yet`);
    void probeUntilAnswered();
  }

  /** Until then every object is read back. */
  async function probeUntilAnswered(): Promise<void> {
    while (payloadCheck === undefined && !stop.aborted) {
      await sleep(STORE_PROBE_PAUSE_MS, undefined, { signal: stop, ref: false }).catch(() => undefined);
      const probed = await probePayloadCheck(s3, storeConfig.bucket, stop).catch(() => undefined);
      if (typeof probed === 'string') useStore(probed);
    }
  }

  function useStore(check: PayloadCheck): void {
    payloadCheck = check;
    if (check === 'sha256') return;
    addContentMd5(s3);
    if (check === 'md5') log.info('the store does not check payload hashes: Content-MD5 is added to every write');
    else log.warn('the store checks neither payload hashes nor Content-MD5: every object is read back and compared');
  }

  /** A wrong secret is said at start, while the other apps begin their work. */
  function checkAccounts(): void {
    for (const account of book.list().slice(0, MAX_ACCOUNTS_CHECKED)) {
      tokens.current(account, stop).then(
        (token) => {
          if (!token.ok)
            log.error(
              { appId: account.appId, failure: token.failure, hint: FAILURES[token.failure.code].hint },
              'no access_token for this app',
            );
        },
        () => undefined,
      );
    }
  }
}

/** More would only delay the first jobs; the rest is said when their first job comes. */
const MAX_ACCOUNTS_CHECKED = 50;

/** Asks at most every `maxAgeMs`, and once at a time, however often it is asked itself. */
function cached<T>(maxAgeMs: number, ask: () => Promise<T>): () => Promise<T> {
  let answer: Promise<T> | undefined;
  let askedAt = 0;
  let pending = false;
  return () => {
    if (answer === undefined || (!pending && elapsed() - askedAt > maxAgeMs)) {
      askedAt = elapsed();
      pending = true;
      answer = ask().finally(() => {
        pending = false;
      });
      answer.catch(() => {
        answer = undefined;
      });
    }
    return answer;
  };
}
