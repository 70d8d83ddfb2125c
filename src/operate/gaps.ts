import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { findGaps, type GapCounts, lookOnOtherDays, type Seeming, type Unsettled } from '../catalog/gaps.ts';
import { inParallel } from '../catalog/in-parallel.ts';
import { openLineFile } from '../catalog/line-file.ts';
import { type OutboxEntry, peekOutbox } from '../catalog/outbox-reader.ts';
import { settledInBucket } from '../catalog/settled-in-bucket.ts';
import type { ConfigWithStore } from '../config.ts';
import { stopOnSignals } from '../lifecycle.ts';
import { deadlineOf } from '../media/deadline.ts';
import { MEDIA_KINDS } from '../media/kind.ts';
import { MEDIA_VARIANTS, type MediaJob, mediaJobId } from '../media/media-job.ts';
import { type Whereabouts, whereaboutsOf } from '../queue/whereabouts.ts';
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
/** Media looked for in the bucket at once. */
const LOOKS_AT_ONCE = 16;

/** Of what has no row: what became of it. `unknown` is open or missing, where Redis is away. */
interface Found {
  archived: number;
  dead: number;
  discarded: number;
  open: number;
  missing: number;
  unknown: number;
}

/**
 * `gaps`: what was accepted, archived, given up and is open, per day and app, and each media that is missing. Built from
 * the catalog in the bucket, so that it shows what a Redis that was lost has taken away; what has no row is looked for in
 * the queue, and then in the bucket itself. Exit 1 when anything is missing, or nobody knows.
 */
export async function gaps(config: ConfigWithStore, options: GapsOptions, output: Output): Promise<number> {
  const stop = stopOnSignals();
  const { signal } = stop;
  try {
    await using tools = await openCatalogTools(config);
    await using queue = await queueOrNone(config, options, output);
    const now = Date.now();
    const last = Math.min(options.until ?? now, now);
    const scope = {
      since: dayOf(iso(options.since ?? last - DEFAULT_DAYS * DAY)),
      until: dayOf(iso(options.until ?? now + DAY)),
      ...(options.app === undefined ? {} : { app: options.app }),
    };
    const waiting = queue === undefined ? nothing() : peekOutbox(queue.redis, queue.keys);
    const { counts, unsettledPaths } = await findGaps(tools, scope, waiting, signal);

    const found = new Map<string, Found>();
    const count = ({ dt, appId }: Unsettled, became: keyof Found): void => {
      const sums = found.get(`${dt} ${appId}`) ?? { ...NOTHING };
      sums[became] += 1;
      found.set(`${dt} ${appId}`, sums);
    };
    const seemingPath = join(tools.folder, 'seeming.ndjson');
    await using file = await openLineFile(seemingPath);
    let [rowless, seeming, missing] = [0, 0, 0];
    for await (const batch of batchesOf(unsettledPaths)) {
      const places = await inQueue(queue, batch);
      await inParallel(LOOKS_AT_ONCE, batch.entries(), async ([index, media]) => {
        const place = places[index];
        if (place !== undefined && place !== 'unknown') return count(media, place);
        const settled = await settledInBucket(tools, jobOf(media), signal);
        if (settled === undefined) {
          seeming += 1;
          return file.write(media);
        }
        rowless += 1;
        count(media, settled);
      });
    }
    await file.end();
    if (seeming > 0) {
      const path = join(tools.folder, 'seeming-and-elsewhere.ndjson');
      await lookOnOtherDays(tools, scope, seemingPath, path, signal);
      const state = queue === undefined ? 'unknown' : 'missing';
      for await (const media of linesOf<Seeming>(path)) {
        count(media, media.isElsewhere ? 'archived' : state);
        if (media.isElsewhere) continue;
        missing += 1;
        tell(media, state, deadlineOf(media, config.media.ttlMs), now, options, output);
      }
    }
    if (options.jobs !== true) summarise(counts, found, queue === undefined, output);
    if (rowless > 0) output.note(`${rowless} are in the bucket and have no row yet: catalog rebuild makes them`);
    return missing > 0 ? EXIT.failed : EXIT.done;
  } catch (error) {
    if (!signal.aborted) throw error;
    return EXIT.failed;
  } finally {
    stop.release();
  }
}

const NOTHING: Found = { archived: 0, dead: 0, discarded: 0, open: 0, missing: 0, unknown: 0 };

function tell(
  media: Unsettled,
  state: 'missing' | 'unknown',
  deadline: number,
  now: number,
  { jobs }: GapsOptions,
  output: Output,
): void {
  const isExpired = now >= deadline;
  if (jobs !== true) {
    const { dt, appId, mediaId, variant, receivedAt, acceptedAt } = media;
    const facts = { dt, appId, mediaId, ...(variant === undefined || variant === null ? {} : { variant }) };
    const row = { [state]: { ...facts, receivedAt, acceptedAt, deadline: iso(deadline), expired: isExpired } };
    const name = `${appId} ${mediaId}${typeof variant === 'string' ? ` ${variant}` : ''}`;
    const until = isExpired ? ', expired' : `, deadline ${iso(deadline)}`;
    output.result(
      row,
      () => `${state === 'missing' ? 'missing' : 'open or missing'} ${name} received ${receivedAt}${until}`,
    );
    return;
  }
  if (isExpired) return;
  const job = jobOf(media);
  output.result(job, () => JSON.stringify(job));
}

function summarise(
  counts: readonly GapCounts[],
  found: ReadonlyMap<string, Found>,
  isRedisAway: boolean,
  output: Output,
): void {
  const rows = counts.map(({ dt, app, accepted, archived, dead, discarded, unrecorded }) => {
    const more = found.get(`${dt} ${app}`) ?? NOTHING;
    return {
      dt,
      app,
      accepted,
      archived: archived + more.archived,
      dead: dead + more.dead,
      discarded: discarded + more.discarded,
      open: more.open,
      missing: more.missing,
      unknown: more.unknown,
      unrecorded,
    };
  });
  if (output.json) {
    for (const row of rows) output.result(row, () => '');
    return;
  }
  const states = isRedisAway ? (['unknown'] as const) : (['open', 'missing'] as const);
  const columns = ['dt', 'app', 'accepted', 'archived', 'dead', 'discarded', ...states, 'unrecorded'] as const;
  output.result(rows, () =>
    table(
      columns,
      rows.map((row) => columns.map((name) => row[name])),
    ),
  );
}

/** Without it nobody can tell what is open from what is missing. */
async function queueOrNone(
  config: ConfigWithStore,
  { jobs }: GapsOptions,
  output: Output,
): Promise<OpenQueue | undefined> {
  try {
    return await openQueue(config);
  } catch (error) {
    if (!(error instanceof CommandError) || jobs === true) throw error;
    output.note(`${error.message}. What is open can't be told from what is missing, and the last minute is not known.`);
    return undefined;
  }
}

async function inQueue(queue: OpenQueue | undefined, media: readonly Unsettled[]): Promise<readonly Whereabouts[]> {
  if (queue === undefined) return [];
  const sought = media.map((one) => ({ appId: one.appId, jobId: mediaJobId(jobOf(one)) }));
  return whereaboutsOf(queue.redis, queue.keys, queue.lanes, sought);
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

async function* batchesOf(paths: readonly string[]): AsyncIterable<readonly Unsettled[]> {
  let batch: Unsettled[] = [];
  for (const path of paths) {
    for await (const media of linesOf(path)) {
      batch.push(media);
      if (batch.length < BATCH) continue;
      yield batch;
      batch = [];
    }
  }
  if (batch.length > 0) yield batch;
}

async function* linesOf<T extends Unsettled>(path: string): AsyncIterable<T> {
  for await (const line of createInterface({ input: createReadStream(path) })) yield JSON.parse(line) as T;
}

async function* nothing(): AsyncIterable<OutboxEntry> {
  // Redis is away.
}
