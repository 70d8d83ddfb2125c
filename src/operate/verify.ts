import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { openDuck } from '../catalog/duck.ts';
import type { BytePace } from '../catalog/read-back.ts';
import { type Verified, type VerifyEvent, verify } from '../catalog/verify.ts';
import type { VerifyScope } from '../catalog/verify-compare.ts';
import { DIFFERENCES, type Difference } from '../catalog/verify-judge.ts';
import type { ConfigWithStore } from '../config.ts';
import { FailureError } from '../failure.ts';
import { stopOnSignals } from '../lifecycle.ts';
import { createBucketFiles } from '../store/bucket-files.ts';
import { dayOf } from '../store/object-keys.ts';
import { createS3Client } from '../store/s3-client.ts';
import { iso, SECOND } from '../time.ts';
import { CommandError, EXIT } from './command-error.ts';
import { byteCount, type Output } from './output.ts';
import { openWorkFolder } from './work-folder.ts';

export interface VerifyOptions {
  readonly all?: boolean;
  readonly sample?: number;
  /** Unix times in milliseconds: their UTC days count. */
  readonly since?: number;
  readonly until?: number;
  readonly app?: string;
  readonly restart?: boolean;
  /** Bytes a second. */
  readonly rate?: number;
  readonly concurrency?: number;
}

const DEFAULT_SAMPLE = 100;
const DEFAULT_CONCURRENCY = 8;
/** A word now and then where nobody watches. */
const NOTE_EVERY_MS = 30 * SECOND;

/**
 * `verify`: looks whether manifests, catalog and objects agree, and reads objects back. Each difference is a result. Exit 1
 * when there is one, or when something could not be checked. Stopped or killed, the same command goes on.
 */
export async function verifyArchive(config: ConfigWithStore, options: VerifyOptions, output: Output): Promise<number> {
  const { all = false, restart = false, rate, concurrency = DEFAULT_CONCURRENCY } = options;
  if (all && options.sample !== undefined) throw new CommandError('--all and --sample exclude each other', EXIT.usage);
  const scope = scopeOf(options);
  output.note(describeScope(scope, options));

  const { catalog, store: storeConfig } = config;
  const { bucket, partSizeBytes } = storeConfig;
  const client = createS3Client(storeConfig, concurrency + 4);
  await using work = await openWorkFolder(catalog.folder, 'verify');
  const { folder } = work;
  const stop = stopOnSignals();
  const watcher = createWatcher(output);
  try {
    using duck = await openDuck({ memoryBytes: catalog.memoryBytes, threads: 1, folder: join(folder, 'spill') });
    const parts = {
      files: createBucketFiles({ client, bucket, partSizeBytes }),
      duck,
      folder,
      now: Date.now,
      newSeed: () => randomBytes(8).toString('hex'),
      concurrency,
      pace: bytePace(rate),
      observe: watcher.observe,
    };
    const verified = await verify(parts, scope, restart, stop.signal);
    watcher.end();
    output.note(describeEnd(verified));
    return verified.unchecked === 0 && Object.keys(verified.counts).length === 0 ? EXIT.done : EXIT.failed;
  } catch (error) {
    watcher.end();
    if (stop.signal.aborted) throw new CommandError('stopped: the same command goes on from here');
    if (error instanceof FailureError) output.note('broken off: the same command goes on from here');
    throw error;
  } finally {
    stop.release();
    client.destroy();
  }
}

function scopeOf({ all = false, sample, since, until, app }: VerifyOptions): VerifyScope {
  const isSample = !all && (sample !== undefined || since === undefined);
  return {
    ...(isSample ? { sample: sample ?? DEFAULT_SAMPLE } : {}),
    ...(since === undefined ? {} : { since: dayOf(iso(since)) }),
    ...(until === undefined ? {} : { until: dayOf(iso(until)) }),
    ...(app === undefined ? {} : { app }),
  };
}

function describeScope({ sample, since, until, app }: VerifyScope, options: VerifyOptions): string {
  const which = [
    ...(since === undefined ? [] : [`from ${since}`]),
    ...(until === undefined ? [] : [`up to ${until}`]),
    ...(app === undefined ? [] : [`of ${app}`]),
  ].join(' ');
  const what = sample === undefined ? 'every object' : `a sample of ${sample}`;
  const hint = sample !== undefined && options.sample === undefined ? '; --all reads all' : '';
  return `comparing everything, reading ${what}${which === '' ? '' : ` ${which}`}${hint}`;
}

/** Shows on a terminal how far it is, and says it now and then where there is none. */
function createWatcher(output: Output): { observe(this: void, event: VerifyEvent): void; end(): void } {
  let [read, bytes, total, differences] = [0, 0, 0, 0];
  let progress: ReturnType<Output['progress']> | undefined;
  const note = (): void =>
    output.note(`${read} of ${total} objects read (${byteCount(bytes)}), ${differences} differences`);
  let timer: NodeJS.Timeout | undefined;
  const end = (): void => {
    progress?.stop();
    clearInterval(timer);
  };
  const observe = (event: VerifyEvent): void => {
    switch (event.type) {
      case 'resumed': {
        const { startedAt, objects } = event.progress;
        output.note(`goes on with what was begun at ${startedAt}: ${objects} objects are read already`);
        return;
      }
      case 'dropped':
        output.note(`what was begun at ${event.progress.startedAt} was broken off too long ago: from the beginning`);
        return;
      case 'compared':
        total = event.toRead;
        output.note(`${event.listed} objects in the bucket, ${total} to read`);
        progress = output.progress('verify', total);
        timer = setInterval(note, NOTE_EVERY_MS).unref();
        return;
      case 'found':
        differences += 1;
        output.result(event.difference, () => describeDifference(event.difference));
        return;
      case 'read':
        read += 1;
        bytes += event.bytes;
        progress?.advance(1);
        return;
      case 'unchecked': {
        const { key, reason } = event;
        output.result({ unchecked: reason, key }, () => `${'unchecked'.padEnd(WORD_WIDTH)}  ${key}\n  ${reason}`);
        return;
      }
      default:
        event satisfies never;
    }
  };
  return { observe, end };
}

const WORD_WIDTH = Math.max(...Object.keys(DIFFERENCES).map((word) => word.length));

function describeDifference({ difference, key, expected, found, sealed }: Difference): string {
  const said = `expected ${expected ?? 'nothing'}, found ${found ?? 'nothing'}${sealed ? ' (sealed)' : ''}`;
  return `${difference.padEnd(WORD_WIDTH)}  ${key}\n  ${said}`;
}

function describeEnd({ counts, unchecked, report, reportKey }: Verified): string {
  const { objects, due, manifests, tip, bytesRead } = report;
  const differences = Object.entries(counts).map(([word, count]) => `${count} ${word}`);
  return [
    `${objects.listed} objects, ${objects.rows} rows, ${objects.sealed} sealed in ${manifests.lists} lists; ${objects.read} read (${byteCount(bytesRead)})`,
    ...(due > 0 ? [`${due} have come too lately to be in the catalog or sealed`] : []),
    ...(manifests.erasedLines > 0 ? [`${manifests.erasedLines} sealed lines are erased`] : []),
    tip === null ? 'nothing is sealed yet' : `the chain ends with ${tip.sequence} (${tip.dt}): ${tip.sha256}`,
    differences.length === 0 ? 'no differences' : `differences: ${differences.join(', ')}`,
    ...(unchecked > 0
      ? [`${unchecked} unchecked: the store did not give them. The same command tries them again.`]
      : []),
    ...(reportKey === undefined ? [] : [`report: ${reportKey}`]),
  ].join('\n');
}

/** Spreads bytes evenly, whoever reads them. */
function bytePace(perSecond: number | undefined): BytePace {
  if (perSecond === undefined) return async () => undefined;
  let next = performance.now();
  return async (bytes, signal) => {
    const wait = next - performance.now();
    next = Math.max(next, performance.now()) + (bytes * SECOND) / perSecond;
    if (wait > 0) await sleep(wait, undefined, { signal });
  };
}
