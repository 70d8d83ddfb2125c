import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { findGaps, type GapCounts, type Unsettled } from '../catalog/gaps.ts';
import { type OutboxEntry, peekOutbox } from '../catalog/outbox-reader.ts';
import type { ConfigWithStore } from '../config.ts';
import { stopOnSignals } from '../lifecycle.ts';
import { MEDIA_KINDS } from '../media/kind.ts';
import { MEDIA_VARIANTS, type MediaJob, mediaJobId } from '../media/media-job.ts';
import { laneOf } from '../queue/lane.ts';
import { dayOf } from '../store/object-keys.ts';
import { DAY, iso } from '../time.ts';
import { openCatalogTools } from './catalog-tools.ts';
import { CommandError, EXIT } from './command-error.ts';
import { type OpenQueue, openQueue } from './open-queue.ts';
import { type Output, table } from './output.ts';

export interface GapsOptions {
  /** Unix times in milliseconds: their UTC days count. */
  readonly since?: number;
  readonly until?: number;
  readonly app?: string;
  readonly jobs?: boolean;
}

const DEFAULT_DAYS = 7;
/** Media asked for in one round trip. */
const BATCH = 500;

/** Of what is neither archived nor given up: how much the queue still holds, and how much is nowhere. */
interface Found {
  open: number;
  missing: number;
}

/**
 * `gaps`: what was accepted, archived, given up and is open, per day and app, and each media that is missing. Built from
 * the catalog in the bucket, so that it shows what a Redis that was lost has taken away. Exit 1 when anything is missing.
 */
export async function gaps(config: ConfigWithStore, options: GapsOptions, output: Output): Promise<number> {
  const stop = stopOnSignals();
  try {
    await using tools = await openCatalogTools(config);
    await using queue = await queueOrNone(config, output);
    const now = Date.now();
    const scope = {
      since: dayOf(iso(options.since ?? now - DEFAULT_DAYS * DAY)),
      until: dayOf(iso(options.until ?? now + DAY)),
      ...(options.app === undefined ? {} : { app: options.app }),
    };
    const waiting = queue === undefined ? nothing() : peekOutbox(queue.redis, queue.keys);
    const { counts, unsettledPath } = await findGaps(tools, scope, waiting, stop.signal);

    const found = new Map<string, Found>();
    for await (const batch of batchesOf(unsettledPath)) {
      const isOpen = await openOnes(queue, batch);
      for (const [index, media] of batch.entries()) {
        const place = `${media.dt} ${media.appId}`;
        const sums = found.get(place) ?? { open: 0, missing: 0 };
        found.set(place, sums);
        if (isOpen[index] === true) {
          sums.open += 1;
          continue;
        }
        sums.missing += 1;
        tell(media, Date.parse(media.receivedAt) + config.media.ttlMs, now, options, output);
      }
    }
    const missing = [...found.values()].reduce((sum, one) => sum + one.missing, 0);
    if (options.jobs !== true) summarise(counts, found, output);
    return missing > 0 ? EXIT.failed : EXIT.done;
  } finally {
    stop.release();
  }
}

function tell(media: Unsettled, deadline: number, now: number, { jobs }: GapsOptions, output: Output): void {
  const isExpired = now >= deadline;
  if (jobs !== true) {
    const { dt, appId, mediaId, variant, receivedAt, acceptedAt } = media;
    const facts = { dt, appId, mediaId, ...(variant === undefined || variant === null ? {} : { variant }) };
    const row = { missing: { ...facts, receivedAt, acceptedAt, deadline: iso(deadline), expired: isExpired } };
    output.result(
      row,
      () =>
        `missing ${appId} ${mediaId} received ${receivedAt}${isExpired ? ', expired' : `, deadline ${iso(deadline)}`}`,
    );
    return;
  }
  if (isExpired) return;
  const job = jobOf(media);
  output.result(job, () => JSON.stringify(job));
}

function summarise(counts: readonly GapCounts[], found: ReadonlyMap<string, Found>, output: Output): void {
  const rows = counts.map(({ unsettled: _, ...facts }) => ({
    ...facts,
    ...(found.get(`${facts.dt} ${facts.app}`) ?? { open: 0, missing: 0 }),
  }));
  if (output.json) {
    for (const row of rows) output.result(row, () => '');
    return;
  }
  const columns = ['dt', 'app', 'accepted', 'archived', 'dead', 'discarded', 'open', 'missing', 'unrecorded'] as const;
  output.result(rows, () =>
    table(
      columns,
      rows.map((row) => columns.map((name) => row[name])),
    ),
  );
}

/** Without it all that is neither archived nor given up counts as missing. */
async function queueOrNone(config: ConfigWithStore, output: Output): Promise<OpenQueue | undefined> {
  try {
    return await openQueue(config);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    output.note(`${error.message}. What is still open counts as missing, and the last minute is not known.`);
    return undefined;
  }
}

/** Which of them the queue holds, or has settled since the catalog was written. */
async function openOnes(queue: OpenQueue | undefined, media: readonly Unsettled[]): Promise<boolean[]> {
  if (queue === undefined) return media.map(() => false);
  const { redis, keys, lanes } = queue;
  const pipeline = redis.pipeline();
  for (const one of media) {
    const id = mediaJobId(jobOf(one));
    pipeline.exists(lanes.lane(laneOf(one.appId)).keyOfJob(id), keys.archived(id), keys.discarded(id));
    pipeline.zscore(keys.deadByTime, id);
  }
  const replies = (await pipeline.exec()) ?? [];
  return media.map((_, index) => {
    const [[failed, places] = [null, 0], [failedToo, score] = [null, null]] = [
      replies[2 * index],
      replies[2 * index + 1],
    ];
    if (failed !== null || failedToo !== null) throw failed ?? failedToo;
    return Number(places) > 0 || score !== null;
  });
}

function jobOf({ appId, mediaId, variant, kind, receivedAt }: Unsettled): MediaJob {
  const known = MEDIA_KINDS.find((one) => one === kind);
  const rendering = MEDIA_VARIANTS.find((one) => one === variant);
  return {
    v: 1,
    appId,
    mediaId,
    receivedAt,
    ...(known === undefined ? {} : { kind: known }),
    ...(rendering === undefined ? {} : { variant: rendering }),
  };
}

async function* batchesOf(path: string): AsyncIterable<readonly Unsettled[]> {
  let batch: Unsettled[] = [];
  for await (const line of createInterface({ input: createReadStream(path) })) {
    batch.push(JSON.parse(line) as Unsettled);
    if (batch.length < BATCH) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}

async function* nothing(): AsyncIterable<OutboxEntry> {
  // Redis is away.
}
