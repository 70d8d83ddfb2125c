import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ConfigWithStore, processEnvironment } from '../config.ts';
import type { Logger } from '../log.ts';
import { elapsed, MINUTE, SECOND } from '../time.ts';
import { CommandError, EXIT } from './command-error.ts';

const SHORTEST_PAUSE_MS = SECOND;
/** Also how long a worker must have run for its end to be the first of its kind. */
const LONGEST_PAUSE_MS = MINUTE;

/** More than a worker needs beyond SHUTDOWN_GRACE_SECONDS to hand back its jobs, close its connections and end. */
const CLOSING_MS = 30 * SECOND;

/** How a process has ended; `error` when it could not be begun. */
interface End {
  readonly code?: number | null;
  readonly signal?: NodeJS.Signals | null;
  readonly error?: unknown;
}

/**
 * Runs WORKER_PROCESSES workers, each a process of its own, since one process of Node uses one core.
 *
 * A worker that ends is started again, unless it ends by itself with an exit code before it was ready for the first time:
 * then what it was given is wrong, and all end. Each is held by a channel: when that is closed, by us or by our own end,
 * the worker stops as at SIGTERM.
 *
 * @throws CommandError when a worker can't be started, or does not end with 0 when it is asked to.
 */
export async function superviseWorkers({ worker }: ConfigWithStore, log: Logger, stop: AbortSignal): Promise<void> {
  const { processes, metricsPort, shutdownGraceMs } = worker;
  const environment = processEnvironment();
  const children = new Set<ChildProcess>();
  let failure: CommandError | undefined;
  const failed = new AbortController();
  const ending = AbortSignal.any([stop, failed.signal]);

  function fail(message: string, code?: number | null): void {
    failure ??= new CommandError(message, code === EXIT.usage ? EXIT.usage : EXIT.failed);
    failed.abort();
  }

  function killAll(): void {
    for (const child of children) child.kill('SIGKILL');
  }

  function endAll(): void {
    for (const child of children) if (child.connected) child.disconnect();
    setTimeout(() => {
      log.error({ pids: [...children].map(({ pid }) => pid) }, 'workers that do not end are killed');
      killAll();
    }, shutdownGraceMs + CLOSING_MS).unref();
  }

  async function runOnce(index: number, onReady: () => void): Promise<End> {
    const [, program = '', ...args] = process.argv;
    const own = { WORKER_PROCESSES: '1', METRICS_PORT: String(metricsPort === 0 ? 0 : metricsPort + index) };
    let child: ChildProcess | undefined;
    try {
      child = fork(program, args, {
        env: { ...environment, ...own },
        stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      });
      const { pid } = child;
      children.add(child);
      child.once('spawn', () => log.info({ process: index, pid }, 'worker process started'));
      child.once('message', onReady);
      const [code, signal] = await once(child, 'exit');
      return { code, signal };
    } catch (error) {
      return { error };
    } finally {
      if (child !== undefined) children.delete(child);
    }
  }

  async function keepRunning(index: number): Promise<void> {
    let pauseMs = 0;
    let wasReady = false;
    while (!ending.aborted) {
      const startedAt = elapsed();
      const { error, ...end } = await runOnce(index, () => {
        wasReady = true;
      });
      const how = `worker ${index + 1} of ${processes} ended with ${end.signal ?? `exit code ${end.code}`}`;
      if (ending.aborted) {
        if (error === undefined && end.code !== 0 && !diedUnbegun(end)) fail(`${how} when it was asked to stop`);
        return;
      }
      if (!wasReady && end.code) return fail(`${how} before it was ready; it has said why`, end.code);
      pauseMs = pauseBeforeNext(pauseMs, elapsed() - startedAt);
      log.error(
        { process: index, ...end, ...(error === undefined ? {} : { err: error }), pauseMs },
        'worker ended, and is started again',
      );
      await sleep(pauseMs, undefined, { signal: ending }).catch(() => undefined);
    }
  }

  // A second signal ends this process at once, and them with it.
  process.once('exit', () => {
    if (stop.aborted) killAll();
  });
  ending.addEventListener('abort', endAll, { once: true });
  await Promise.all(Array.from({ length: processes }, (_, index) => keepRunning(index)));
  if (failure !== undefined) throw failure;
}

/** Who dies of the very signal to stop had not begun to listen to it, nor to work. */
function diedUnbegun({ signal }: End): boolean {
  return signal === 'SIGTERM' || signal === 'SIGINT';
}

/** Twice the last pause where the worker has died soon after its start. */
export function pauseBeforeNext(lastPauseMs: number, livedMs: number): number {
  if (livedMs > LONGEST_PAUSE_MS) return SHORTEST_PAUSE_MS;
  return Math.min(Math.max(SHORTEST_PAUSE_MS, 2 * lastPauseMs), LONGEST_PAUSE_MS);
}
