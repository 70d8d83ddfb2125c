import { createHash } from 'node:crypto';
import { inject } from 'vitest';
import type { ArchivedObject } from '../../src/archive/archive-media.ts';
import { forgetMedia } from '../../src/archive/forget-media.ts';
import { type AttemptFacts, describeObject } from '../../src/archive/object-metadata.ts';
import { recoverMedia } from '../../src/archive/recover-media.ts';
import { announceTo, createOutbox } from '../../src/catalog/outbox.ts';
import type { DeadLetter } from '../../src/dead-letter/dead-letter.ts';
import { createDeadLetterIndex, type DeadLetterIndex } from '../../src/dead-letter/dead-letter-index.ts';
import { createDeadLetters, type DeadLetters } from '../../src/dead-letter/dead-letters.ts';
import { type EmbeddedS3, startEmbeddedS3 } from '../../src/demo/embedded-s3.ts';
import { type Failure, type Result, succeed } from '../../src/failure.ts';
import { DEFAULT_MEDIA_TTL_MS } from '../../src/media/deadline.ts';
import { type MediaJob, mediaJobId } from '../../src/media/media-job.ts';
import { type ArchivedMarkers, createArchivedMarkers } from '../../src/queue/archived-marker.ts';
import { createDoor, type Door, type DoorOptions } from '../../src/queue/door.ts';
import { createGates, type Gates } from '../../src/queue/gates.ts';
import type { JobEvent } from '../../src/queue/job-events.ts';
import { type Lane, type Lanes, laneOf, type Taken, type TakenJob } from '../../src/queue/lane.ts';
import { openLanes } from '../../src/queue/open-lanes.ts';
import { createRunJob, type RunJob } from '../../src/queue/run-job.ts';
import { createSettle } from '../../src/queue/settle.ts';
import type { RedisClient } from '../../src/redis/connect.ts';
import { Secret } from '../../src/secret.ts';
import type { ArchiveStore } from '../../src/store/archive-store.ts';
import type { BucketFiles } from '../../src/store/bucket-files.ts';
import { deadLetterKey, mediaKey } from '../../src/store/object-keys.ts';
import { createS3Client } from '../../src/store/s3-client.ts';
import { createS3Store } from '../../src/store/s3-store.ts';
import { type Clock, MINUTE } from '../../src/time.ts';
import { type TestClock, testClock } from './clock.ts';
import { APP_ID } from './jobs.ts';
import type { TestRedis } from './redis.ts';

export const LOCK_MS = MINUTE;
export const never = new AbortController().signal;

/** A bucket on an S3 server in this process. */
export interface TestStore extends AsyncDisposable {
  readonly s3: EmbeddedS3;
  readonly store: ArchiveStore;
}

export async function openTestStore(): Promise<TestStore> {
  const s3 = await startEmbeddedS3('weixin-media');
  const partSizeBytes = 8 * 1024 * 1024;
  const credentials = { accessKeyId: 'test', secretAccessKey: new Secret('test') };
  const { bucket, endpoint } = s3;
  const client = createS3Client({ bucket, endpoint, partSizeBytes, forcePathStyle: true, credentials }, 16);
  return {
    s3,
    store: createS3Store({ client, bucket, partSizeBytes }),
    [Symbol.asyncDispose]: async () => {
      client.destroy();
      await s3.stop();
    },
  };
}

/** Lanes over a connection of their own, as another process has them. */
export function testLanes(corner: TestRedis, redis: RedisClient = corner.connect(), now: Clock = Date.now): Lanes {
  return openLanes(redis, corner.prefix, { lockMs: LOCK_MS, rescueEveryMs: LOCK_MS / 2, now });
}

export function testDoor(corner: TestRedis, lanes: Lanes, clock: TestClock, more: Partial<DoorOptions> = {}): Door {
  const { redis, keys } = corner;
  return createDoor({
    redis,
    keys,
    lanes,
    mediaTtlMs: DEFAULT_MEDIA_TTL_MS,
    openId: { type: 'none' },
    now: clock.now,
    ...more,
  });
}

/** Takes the next job of a lane. @throws when there is none. */
export async function takeOne(lane: Lane, token: string = crypto.randomUUID()): Promise<TakenJob> {
  const { job } = await lane.take(token);
  if (job === undefined) throw new Error(`nothing to take in ${lane.name}`);
  return job;
}

/** What happens to a job whose worker died: its lock runs out, one look notices it, and the next puts it back. */
export async function loseWorker(redis: RedisClient, lane: Lane, jobId: string): Promise<void> {
  await redis.del(`${lane.keyOfJob(jobId)}:lock`);
  const rescued: string[] = [];
  for (let look = 0; look < 2; look += 1) {
    await redis.del(lane.keyOfJob('stalled-check'));
    rescued.push(...(await lane.rescue()));
  }
  if (!rescued.includes(jobId)) throw new Error(`${jobId} was not put back`);
}

/** Lets the time come that a delayed job waits for. */
export async function makeDue(redis: RedisClient, lane: Lane, jobId: string): Promise<void> {
  const changed = await redis.zadd(lane.keyOfJob('delayed'), 'XX', 'CH', 0, jobId);
  if (changed !== 1) throw new Error(`${jobId} is not delayed`);
}

const LANE_STEPS = ['add', 'delay', 'update', 'complete', 'completeAndTake', 'fail'] as const;

/** One worker's queue parts; each stands for a process of its own on the same Redis and bucket. */
export interface TestWorker {
  readonly lanes: Lanes;
  readonly lane: Lane;
  readonly markers: ArchivedMarkers;
  readonly gates: Gates;
  readonly index: DeadLetterIndex;
  readonly deadLetters: DeadLetters;
  readonly door: Door;
  readonly runJob: RunJob;
  readonly events: JobEvent[];
  /** Takes the next job of the lane and runs it. @returns what `RunJob` does. */
  runNext(options?: {
    readonly lane?: Lane;
    readonly onlyIfDue?: boolean;
    readonly signal?: AbortSignal;
  }): Promise<boolean>;
  /** Takes the next job of the lane and runs it, and those that can be taken as another ends. */
  runChain(): Promise<void>;
}

export type Attempt = (job: MediaJob, signal: AbortSignal) => Promise<Result<ArchivedObject>>;

export interface TestWorkerOptions {
  readonly corner: TestRedis;
  readonly store: ArchiveStore;
  readonly clock?: TestClock;
  /** In place of fetching and storing; stores a few bytes when absent. */
  readonly attempt?: Attempt;
  readonly mediaTtlMs?: number;
  readonly appId?: string;
  readonly redis?: RedisClient;
  readonly onEvent?: (event: JobEvent) => void;
  /** Stands between the worker and everything it does to the outside; for faults. */
  readonly watch?: Watch;
}

/** Returns the same object, with calls of the named methods seen. */
export type Watch = <T extends object>(object: T, methods: readonly (keyof T & string)[]) => T;

export function testWorker({
  corner,
  store: wholeStore,
  clock = testClock(Date.now()),
  attempt,
  mediaTtlMs = DEFAULT_MEDIA_TTL_MS,
  appId = APP_ID,
  redis = corner.redis,
  onEvent = () => undefined,
  watch = (object) => object,
}: TestWorkerOptions): TestWorker {
  const { keys } = corner;
  const { now } = clock;
  const random = (): number => 0.5;
  const events: JobEvent[] = [];
  const observe = (event: JobEvent): void => {
    events.push(event);
    onEvent(event);
  };
  const store = watch(wholeStore, ['write', 'find', 'abandonUploads', 'readJson', 'writeJson']);
  const opened = testLanes(corner, redis, now);
  const watched = new Map<string, Lane>();
  const lanes: Lanes = {
    lane: (name) => {
      const lane = watched.get(name) ?? watch(opened.lane(name), LANE_STEPS);
      watched.set(name, lane);
      return lane;
    },
    glance: opened.glance,
    close: opened.close,
  };
  const lane = lanes.lane(laneOf(appId));
  const markers = watch(createArchivedMarkers(redis, keys, now), ['mark', 'find', 'look']);
  const gates = watch(createGates(redis, keys, now, now, random), ['close', 'open']);
  const index = watch(createDeadLetterIndex(redis, keys, now), ['add', 'remove', 'removeDeath', 'discard']);
  const deadLetters = createDeadLetters(store, index, announceTo(createOutbox(redis, keys, now)), now);
  const door = createDoor({ redis, keys, lanes, mediaTtlMs, openId: { type: 'none' }, now });
  const recover = recoverMedia.bind(undefined, store);
  const removeVersions: BucketFiles['removeVersions'] = async (key, signal) => {
    const removed = await store.remove(key, signal);
    return removed.ok ? succeed(1) : removed;
  };
  const forget = forgetMedia.bind(undefined, store, { removeVersions });
  const settle = createSettle({ markers, deadLetters, recover, forget, mediaTtlMs, now, observe });
  const runJob = createRunJob({
    attempt: (job, facts, signal) =>
      attempt === undefined ? storeSomething(store, job, signal, facts) : attempt(job, signal),
    recover,
    settle,
    markers,
    gates,
    door,
    openId: { type: 'none' },
    mediaTtlMs,
    now,
    random,
    observe,
  });
  return {
    lanes,
    lane,
    markers,
    gates,
    index,
    deadLetters,
    door,
    runJob,
    events,
    runNext: async ({ lane: from = lane, onlyIfDue = false, signal = never } = {}) =>
      runJob(from, await takeOne(from), onlyIfDue, signal),
    runChain: async () => {
      let next: Taken = { job: await takeOne(lane) };
      while (next.job !== undefined) {
        const { job } = next;
        next = { nextAt: undefined };
        const goOn = async (step: () => Promise<Taken>): Promise<void> => {
          next = await step();
        };
        await runJob(lane, job, false, never, { goesOn: () => true, goOn, rest: () => undefined });
      }
    },
  };
}

/** Archives a few bytes that are the same for the same job. */
export async function storeSomething(
  store: ArchiveStore,
  job: MediaJob,
  signal: AbortSignal = never,
  facts?: AttemptFacts,
): Promise<Result<ArchivedObject>> {
  const body = Buffer.from(`the bytes of ${job.mediaId}`);
  const digest = { sizeBytes: body.byteLength, sha256: createHash('sha256').update(body).digest('hex') };
  const named = { key: mediaKey(job, 'jpg'), contentType: 'image/jpeg' };
  const { metadata } = describeObject(job, { declaredType: 'image/jpeg' }, facts, job.receivedAt, digest.sha256);
  const written = await store.write({ ...named, metadata, body, digest }, signal);
  if (!written.ok) return written;
  return succeed({ ...named, ...digest, metadata, created: written.value.created });
}

/** An attempt that fails with these, one after the other; with the last for ever. */
export function failing(...failures: readonly Failure[]): Attempt {
  let next = 0;
  return async () => {
    const failure = failures[Math.min(next, failures.length - 1)];
    next += 1;
    if (failure === undefined) throw new Error('no failure was given');
    return { ok: false, failure };
  };
}

/** The dead letter of a job as it lies in the bucket. */
export async function letterOf({ deadLetters }: TestWorker, job: MediaJob): Promise<DeadLetter | undefined> {
  const letter = await deadLetters.read(deadLetterKey(job), never);
  if (!letter.ok) throw new Error(letter.failure.code);
  return letter.value;
}

/** Where a media is: in which of the places that a media can be in at the end. */
export async function whereabouts(worker: TestWorker, job: MediaJob): Promise<Whereabouts> {
  const id = mediaJobId(job);
  const [[marker], inLane, listed, letter] = await Promise.all([
    worker.markers.find([id]),
    worker.lane.peek(id),
    worker.index.get(id),
    letterOf(worker, job),
  ]);
  return { archivedAt: marker, inLane: inLane?.state, listed: listed?.reason, letter: letter?.status };
}

export interface Whereabouts {
  readonly archivedAt: string | undefined;
  readonly inLane: string | undefined;
  /** The reason, if it is among the open dead letters. */
  readonly listed: string | undefined;
  readonly letter: string | undefined;
}

export function redisExecutable(): string {
  return inject('redisExecutable');
}
