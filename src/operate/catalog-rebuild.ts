import { setTimeout as sleep } from 'node:timers/promises';
import { noteRebuilt, type Rebuilt, rebuildPartition } from '../catalog/rebuild.ts';
import { partitionsToRebuild, type RebuildScope, type RebuiltPartition } from '../catalog/rebuild-partitions.ts';
import { finishReplacements, openReplacements } from '../catalog/replace-files.ts';
import type { ConfigWithStore } from '../config.ts';
import { stopOnSignals } from '../lifecycle.ts';
import { type Confirm, LeaseLostError, whileHeld } from '../redis/held-lease.ts';
import type { BucketFiles } from '../store/bucket-files.ts';
import { dayOf } from '../store/object-keys.ts';
import { iso, MINUTE, SECOND } from '../time.ts';
import { openCatalogTools } from './catalog-tools.ts';
import { CommandError, EXIT } from './command-error.ts';
import { type OpenQueue, openQueue } from './open-queue.ts';
import { type Output, table } from './output.ts';

export interface RebuildOptions {
  /** Unix times in milliseconds; their days are included. */
  readonly since?: number;
  readonly until?: number;
  readonly app?: string;
  readonly dryRun?: boolean;
  /** False: while Redis is away, when no catalog process can run. */
  readonly lease?: boolean;
}

/** How long the catalog process may take for what it is at. */
const LEASE_WAIT_MS = 15 * MINUTE;
const LEASE_MS = 15 * SECOND;
/** How often a partition is begun anew whose lease was lost, as by a machine that slept. */
const LEASE_TRIES = 3;

const COUNTS = ['objects', 'added', 'removed', 'foreign', 'unread', 'spoilt'] as const;

/**
 * `catalog rebuild`: makes the rows of media, dead letters and derived files anew from the bucket alone. Exit 1 when an
 * object could not be looked at: its row is left as it is. What was accepted is known from the outbox alone, and is left as it is.
 */
export async function rebuildCatalog(
  config: ConfigWithStore,
  options: RebuildOptions,
  output: Output,
): Promise<number> {
  const isDryRun = options.dryRun === true;
  const stop = stopOnSignals();
  let confirmLease: Confirm = () => undefined;
  try {
    await using queue = await queueFor(config, options);
    if (queue === undefined && !isDryRun) output.note('without the lease: make sure that no catalog process runs');
    // One that was frozen must not write after another has taken over.
    await using tools = await openCatalogTools(config, () => confirmLease());
    using progress = output.progress('objects', 0);
    let seen = 0;
    const parts = {
      ...tools,
      held,
      beforeReplacing: (dt: string, signal: AbortSignal) => noteRebuilt(tools, dt, Date.now(), signal),
      onObject: () => {
        seen += 1;
        progress.total(seen);
        progress.advance(1);
      },
      onUnread: (key: string, { code, detail }: { readonly code: string; readonly detail?: string }) => {
        const facts = { unread: key, code, ...(detail === undefined ? {} : { detail }) };
        output.result(facts, () => `${key} can't be looked at: ${code}${detail === undefined ? '' : ` (${detail})`}`);
      },
      onForeign: (key: string) => output.result({ foreign: key }, () => `${key} is none of ours`),
    };

    const total: Record<(typeof COUNTS)[number] | 'letters' | 'derived', number> = {
      objects: 0,
      added: 0,
      removed: 0,
      letters: 0,
      derived: 0,
      foreign: 0,
      unread: 0,
      spoilt: 0,
    };
    if (!isDryRun && (await isHalfReplaced(tools.files, stop.signal)))
      await held((signal) => finishReplacements(tools.files, signal));
    const partitions = await partitionsToRebuild(tools.files, scopeOf(options), stop.signal);
    for (const partition of partitions) {
      const rebuilt = await whole(() => rebuildPartition(parts, partition, isDryRun, stop.signal));
      add(partition, rebuilt);
      if (COUNTS.some((name) => name !== 'objects' && rebuilt[name] > 0))
        output.result({ ...partition, ...rebuilt }, () => partitionText(partition, rebuilt));
    }
    progress.stop();
    const days = new Set(partitions.map(({ dt }) => dt)).size;
    const summary = { days, ...total, dryRun: isDryRun };
    output.result(summary, () =>
      table(
        ['days', 'objects', 'rows added', 'removed', 'letters', 'derived', 'not ours', 'unread', 'spoilt files'],
        [
          [
            days,
            ...(['objects', 'added', 'removed', 'letters', 'derived', 'foreign', 'unread', 'spoilt'] as const).map(
              (name) => total[name],
            ),
          ],
        ],
      ),
    );
    return total.unread > 0 ? EXIT.failed : EXIT.done;

    function add({ table: name }: RebuiltPartition, rebuilt: Rebuilt): void {
      for (const count of ['foreign', 'unread', 'spoilt'] as const) total[count] += rebuilt[count];
      const differing = Math.max(rebuilt.added, rebuilt.removed);
      if (name === 'dead-letters') total.letters += differing;
      else if (name === 'derived') total.derived += differing;
      else for (const count of ['objects', 'added', 'removed'] as const) total[count] += rebuilt[count];
    }

    /** For a partition at a time, and not while its objects are looked at: the catalog process has its turns in between. */
    async function held<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
      if (queue === undefined) return work(stop.signal);
      const giveUpAt = performance.now() + LEASE_WAIT_MS;
      const leaseMs = Math.min(config.worker.lockMs, LEASE_MS);
      for (let isTold = false; ; isTold = true) {
        const done = await whileHeld(queue.redis, queue.keys.catalogLease, leaseMs, stop.signal, (signal, confirm) => {
          confirmLease = confirm;
          return work(signal);
        }).finally(() => {
          confirmLease = () => undefined;
        });
        if (done !== undefined) return done.value;
        if (performance.now() > giveUpAt) throw new CommandError('the catalog process does not let go of the catalog');
        if (!isTold) output.note('the catalog process is at work: waiting for it');
        await sleep(SECOND / 4, undefined, { signal: stop.signal });
      }
    }
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    output.note('broken off: run it again, it goes through everything anew');
    return EXIT.failed;
  } finally {
    stop.release();
  }
}

function scopeOf({ since, until, app }: RebuildOptions): RebuildScope {
  return {
    ...(since === undefined ? {} : { since: dayOf(iso(since)) }),
    ...(until === undefined ? {} : { until: dayOf(iso(until)) }),
    ...(app === undefined ? {} : { app }),
  };
}

/** What a process that died has left half done; or what one that lives does just now. */
async function isHalfReplaced(files: BucketFiles, signal: AbortSignal): Promise<boolean> {
  for await (const _ of openReplacements(files, signal)) return true;
  return false;
}

/** A dry run changes nothing, and needs no lease. */
async function queueFor(config: ConfigWithStore, { lease, dryRun }: RebuildOptions): Promise<OpenQueue | undefined> {
  if (lease === false || dryRun === true) return undefined;
  try {
    return await openQueue(config);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    throw new CommandError(
      `${error.message}. The bucket alone is enough: with --no-lease, where no catalog process runs`,
    );
  }
}

/** Begins anew what was broken off because the lease was lost: repeating it is harmless. */
async function whole<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof LeaseLostError) || tries === LEASE_TRIES) throw error;
    }
  }
}

function partitionText({ table: name, dt, app }: RebuiltPartition, rebuilt: Rebuilt): string {
  const { objects, added, removed, foreign, unread, spoilt } = rebuilt;
  const more = [
    foreign > 0 ? `not ours ${foreign}` : undefined,
    unread > 0 ? `unread ${unread}` : undefined,
    spoilt > 0 ? `spoilt files ${spoilt}` : undefined,
  ].filter((text) => text !== undefined);
  return [`${dt} ${app} ${name}: ${objects} objects; rows added ${added}, removed ${removed}`, ...more].join('; ');
}
