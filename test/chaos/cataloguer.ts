import type { WorkerProcess } from '../../src/demo/worker-process.ts';
import { MINUTE } from '../../src/time.ts';
import { catalogRows, rowsOfObjects, sorted } from '../support/catalog.ts';
import { eventually } from '../support/eventually.ts';
import { lettersOf, type Stack } from '../support/stack.ts';
import type { Finding } from './findings.ts';
import type { Wish } from './wishes.ts';

/** Flushes all the time. */
const BUSY = { CATALOG_FLUSH_ROWS: '20', CATALOG_FLUSH_SECONDS: '0.1' };

/** The catalog process of a run, replaced when it is ended. */
export interface Cataloguer extends AsyncDisposable {
  readonly running: WorkerProcess;
  logs(): string[];
  /** SIGKILL, and a new one in its place. */
  kill(): Promise<void>;
  /** Waits until all that is known is written, then ends it. */
  finish(): Promise<void>;
}

export function startCataloguer(stack: Stack): Cataloguer {
  const all: WorkerProcess[] = [];
  const start = (): WorkerProcess => {
    const started = stack.catalog(BUSY);
    all.push(started);
    return started;
  };
  let running = start();
  const end = async (signal: 'SIGKILL' | 'SIGTERM'): Promise<void> => {
    running.process.kill(signal);
    await running.exited;
  };
  return {
    get running() {
      return running;
    },
    logs: () => all.map((one) => one.log()),
    kill: async () => {
      await end('SIGKILL');
      running = start();
    },
    finish: async () => {
      await eventually(
        async () => ((await stack.redis.xlen(stack.queue.keys.outbox)) === 0 ? true : undefined),
        2 * MINUTE,
      );
      await end('SIGTERM');
    },
    [Symbol.asyncDispose]: () => end('SIGKILL'),
  };
}

/** Compares the catalog with the bucket, row by row: each row once and right, none missing and none too many. */
export async function judgeCatalog(stack: Stack, accepted: Iterable<Wish>): Promise<Finding[]> {
  const findings: Finding[] = [];
  const objects = sorted(await rowsOfObjects(stack)).map((row) => JSON.stringify(row, ordered));
  const rows = sorted(await catalogRows(stack, 'media')).map((row) => JSON.stringify(row, ordered));
  const [known, made] = [new Set(rows), new Set(objects)];
  if (known.size < rows.length)
    findings.push({ what: 'rows that are there twice', detail: `${rows.length - known.size}` });
  for (const row of objects) if (!known.has(row)) findings.push({ what: 'an object without its row', detail: row });
  for (const row of rows) if (!made.has(row)) findings.push({ what: 'a row without its object', detail: row });

  const states = new Map((await catalogRows(stack, 'dead-letters')).map((row) => [row['media_id'], row['status']]));
  for (const { mediaId, status } of await lettersOf(stack)) {
    if (states.get(mediaId) !== status)
      findings.push({
        what: 'a dead letter whose row says otherwise',
        detail: `${mediaId} ${status} ${states.get(mediaId)}`,
      });
  }
  const noted = new Set((await catalogRows(stack, 'accepted')).map((row) => row['media_id']));
  for (const { job, jobId } of accepted)
    if (!noted.has(job.mediaId)) findings.push({ what: 'accepted, and no row says so', jobId });
  return findings;
}

function ordered(_name: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}
