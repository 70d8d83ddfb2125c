import { setTimeout as sleep } from 'node:timers/promises';
import { appsOf, daysBetween, firstDay } from '../catalog/days.ts';
import { dayOfInstant, expectLateEntries, noteChangedDay, rebuildRows } from '../catalog/rebuild.ts';
import { reconcileLetters } from '../catalog/reconcile-letters.ts';
import type { ConfigWithStore } from '../config.ts';
import { whileHeld } from '../redis/held-lease.ts';
import { MINUTE, SECOND } from '../time.ts';
import { openCatalogTools } from './catalog-tools.ts';
import { CommandError, EXIT } from './command-error.ts';
import { openQueue } from './open-queue.ts';
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
const MAX_TOLD = 20;

/**
 * `catalog rebuild`: makes the rows of media, derived files and dead letters anew from the bucket alone. Exit 1 when an object could not
 * be looked at: its partition is left as it is. What was accepted is known from the outbox alone, and is left as it is.
 */
export async function rebuildCatalog(
  config: ConfigWithStore,
  options: RebuildOptions,
  output: Output,
): Promise<number> {
  const signal = new AbortController().signal;
  await using tools = await openCatalogTools(config);
  await using queue = options.lease === false ? undefined : await openQueue(config);
  if (queue === undefined) output.note('without the lease: make sure that no catalog process runs');
  const since = options.since === undefined ? await firstDay(tools.files, signal) : dayOfInstant(options.since);
  if (since === undefined) {
    output.note('the bucket holds no media');
    return EXIT.done;
  }
  const until = dayOfInstant(options.until ?? Date.now());
  let told = 0;
  using progress = output.progress('objects', 0);
  let seen = 0;
  const parts = {
    ...tools,
    now: Date.now,
    onObject: () => {
      seen += 1;
      progress.total(seen);
      progress.advance(1);
    },
    onUnread: (key: string, { failure }: { failure: { code: string } }) => {
      told += 1;
      if (told <= MAX_TOLD) output.note(`${key} can't be looked at: ${failure.code}`);
    },
  };

  const lease = Math.min(config.worker.lockMs, LEASE_MS);
  /** One partition at a time, so that the catalog process has its turns in between. */
  async function held<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    if (queue === undefined) return work(signal);
    const { redis, keys } = queue;
    const giveUpAt = performance.now() + LEASE_WAIT_MS;
    for (;;) {
      const done = await whileHeld(redis, keys.catalogLease, lease, signal, work);
      if (done !== undefined) return done.value;
      if (performance.now() > giveUpAt) throw new CommandError('the catalog process does not let go of the catalog');
      await sleep(SECOND / 4);
    }
  }

  const total = { days: 0, objects: 0, added: 0, removed: 0, foreign: 0, unread: 0, letters: 0, derived: 0 };
  const apps = options.app === undefined ? await Array.fromAsync(appsOf(tools.files, signal)) : [options.app];
  for (const dt of daysBetween(since, until)) {
    let isChanged = false;
    for (const app of apps) {
      const rebuilt = await held(async (leased) => {
        if (options.dryRun !== true) await expectLateEntries(parts, leased);
        return rebuildRows(parts, 'media', dt, app, options.dryRun === true, leased);
      });
      const derived = await held((leased) => rebuildRows(parts, 'derived', dt, app, options.dryRun === true, leased));
      total.derived += derived.added + derived.removed;
      total.unread += derived.unread;
      for (const field of ['objects', 'added', 'removed', 'foreign', 'unread'] as const) total[field] += rebuilt[field];
      if (rebuilt.added + rebuilt.removed + rebuilt.unread + rebuilt.foreign === 0) continue;
      isChanged = true;
      output.result({ dt, app, ...rebuilt }, () => {
        const { objects, added, removed, foreign, unread } = rebuilt;
        return `${dt} ${app}: ${objects} objects; rows added ${added}, removed ${removed}; not ours ${foreign}, unread ${unread}`;
      });
    }
    if (options.dryRun !== true) {
      total.letters += await held((leased) => reconcileLetters(tools, dt, leased));
      if (isChanged) await held((leased) => noteChangedDay(tools, dt, leased));
    }
    total.days += 1;
  }
  progress.stop();
  const summary = { ...total, dryRun: options.dryRun === true };
  output.result(summary, () =>
    table(
      ['days', 'objects', 'rows added', 'removed', 'letters', 'derived', 'not ours', 'unread'],
      [
        [
          total.days,
          total.objects,
          total.added,
          total.removed,
          total.letters,
          total.derived,
          total.foreign,
          total.unread,
        ],
      ],
    ),
  );
  return total.unread > 0 ? EXIT.failed : EXIT.done;
}
