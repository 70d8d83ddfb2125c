import type { WorkerProcess } from '../../src/demo/worker-process.ts';
import { MINUTE } from '../../src/time.ts';
import { catalogRows, rowsOfLetters, rowsOfObjects, sorted } from '../support/catalog.ts';
import { eventually } from '../support/eventually.ts';
import type { Stack } from '../support/stack.ts';
import type { Finding } from './findings.ts';
import type { Wish } from './wishes.ts';

const PROCESSES = 2;
/** The longest one may take to stop: its grace, and what it gives each thing that it closes. */
const STOP_LIMIT_MS = MINUTE;
/** Flushes all the time. */
const BUSY = { CATALOG_FLUSH_ROWS: '20', CATALOG_FLUSH_SECONDS: '0.1' };

/** The catalog processes of a run, replaced as they are ended. One of them works, the other stands by. */
export interface Cataloguer extends AsyncDisposable {
  readonly running: readonly WorkerProcess[];
  /** Processes that ended although nobody ended them, or did not end as they should. */
  readonly findings: readonly Finding[];
  logs(): string[];
  /** SIGKILL, and a new one in its place. */
  kill(process: WorkerProcess): Promise<void>;
  /** SIGTERM, and a new one in its place. It must end with 0. */
  stop(process: WorkerProcess): Promise<void>;
  /** Waits until all that is known is written, then ends it. */
  finish(): Promise<void>;
}

export function startCataloguer(stack: Stack): Cataloguer {
  const all: WorkerProcess[] = [];
  const running: WorkerProcess[] = [];
  const dismissed = new Set<WorkerProcess>();
  const findings: Finding[] = [];

  function add(): void {
    const started = stack.catalog(BUSY);
    all.push(started);
    running.push(started);
    void started.exited.then((how) => {
      if (dismissed.has(started)) return;
      // One that can't begin says so and ends; whoever runs it starts it again.
      if (how !== 1 || !started.log().includes('"level":"fatal"'))
        findings.push({ what: 'a catalog process ended by itself', detail: `${how}: ${started.log().slice(-2_000)}` });
      replace(started);
    });
  }

  function replace(one: WorkerProcess): void {
    running.splice(running.indexOf(one), 1);
    add();
  }

  async function dismiss(one: WorkerProcess, signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    dismissed.add(one);
    one.process.kill(signal);
    const limit = setTimeout(() => one.process.kill('SIGKILL'), STOP_LIMIT_MS);
    const how = await one.exited;
    clearTimeout(limit);
    // One that has not begun to listen ends at once.
    const isFine = how === 0 || (how === 'SIGTERM' && !one.log().includes('catalog started'));
    if (signal === 'SIGTERM' && !isFine)
      findings.push({ what: 'a catalog process did not stop with 0', detail: `${how}: ${one.log().slice(-2_000)}` });
  }

  for (let left = PROCESSES; left > 0; left -= 1) add();
  return {
    running,
    findings,
    logs: () => all.map((one) => one.log()),
    kill: async (one) => {
      await dismiss(one, 'SIGKILL');
      replace(one);
    },
    stop: async (one) => {
      await dismiss(one, 'SIGTERM');
      replace(one);
    },
    finish: async () => {
      const isDone = async (): Promise<true | undefined> =>
        (await stack.redis.xlen(stack.queue.keys.outbox)) === 0 ? true : undefined;
      await eventually(isDone, 2 * MINUTE).catch(() => {
        const detail = running.map((one) => one.log().slice(-3_000)).join('\n');
        findings.push({ what: 'the outbox does not become empty', detail });
      });
      await Promise.all(running.map((one) => dismiss(one, 'SIGTERM')));
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all(running.map((one) => dismiss(one, 'SIGKILL')));
    },
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

  const letters = sorted(await rowsOfLetters(stack)).map((row) => JSON.stringify(row, ordered));
  const told = sorted(await catalogRows(stack, 'dead-letters')).map((row) => JSON.stringify(row, ordered));
  const [all, said] = [new Set(letters), new Set(told)];
  if (said.size < told.length)
    findings.push({ what: 'letters that are there twice', detail: `${told.length - said.size}` });
  for (const row of letters) if (!said.has(row)) findings.push({ what: 'a dead letter without its row', detail: row });
  for (const row of told) if (!all.has(row)) findings.push({ what: 'a row without its dead letter', detail: row });
  const noted = new Set((await catalogRows(stack, 'accepted')).map((row) => row['media_id']));
  for (const { job, jobId } of accepted)
    if (!noted.has(job.mediaId)) findings.push({ what: 'accepted, and no row says so', jobId });
  return findings;
}

function ordered(_name: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}
