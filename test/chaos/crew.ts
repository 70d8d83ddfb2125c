import { readFile } from 'node:fs/promises';
import type { WorkerProcess } from '../../src/demo/worker-process.ts';
import { type Random, SECOND } from '../../src/time.ts';
import type { Stack } from '../support/stack.ts';
import type { Finding } from './findings.ts';
import { oneOf } from './wishes.ts';

/** The longest a worker may take to stop: its grace, and what it gives each thing that it closes. */
const STOP_LIMIT_MS = 60 * SECOND;
const MEMORY_LOOK_MS = SECOND;

/** The worker processes of a run: as many as it should have, replaced as they are ended. */
export interface Crew extends AsyncDisposable {
  readonly running: readonly WorkerProcess[];
  /** How many have been started. */
  readonly started: number;
  /** The most memory that one of them has held. */
  readonly peakRssBytes: number;
  /** Workers that ended although nobody ended them, or did not end as they should. */
  readonly findings: readonly Finding[];
  /** What all of them have logged. */
  logs(): string[];
  pick(random: Random): WorkerProcess;
  /** SIGKILL, and a new one in its place. */
  kill(worker: WorkerProcess): Promise<void>;
  /** SIGTERM, and a new one in its place. It must end with 0. */
  stop(worker: WorkerProcess): Promise<void>;
}

export function startCrew(stack: Stack, size: number): Crew {
  const running: WorkerProcess[] = [];
  const all: WorkerProcess[] = [];
  const dismissed = new Set<WorkerProcess>();
  const findings: Finding[] = [];
  let peakRssBytes = 0;

  function add(): void {
    const worker = stack.worker();
    running.push(worker);
    all.push(worker);
    void worker.exited.then((how) => {
      if (dismissed.has(worker)) return;
      // One that is started while the store refuses it says so and ends; whoever runs it starts it again.
      if (how !== 1 || !worker.log().includes('"level":"fatal"'))
        findings.push({ what: 'a worker ended by itself', detail: `${how}: ${worker.log().slice(-2_000)}` });
      replace(worker);
    });
  }

  function replace(worker: WorkerProcess): void {
    running.splice(running.indexOf(worker), 1);
    add();
  }

  async function dismiss(worker: WorkerProcess, signal: 'SIGKILL' | 'SIGTERM'): Promise<number | NodeJS.Signals> {
    dismissed.add(worker);
    worker.process.kill(signal);
    const limit = setTimeout(() => worker.process.kill('SIGKILL'), STOP_LIMIT_MS);
    const how = await worker.exited;
    clearTimeout(limit);
    return how;
  }

  const looking = setInterval(() => {
    for (const { process: child } of running) {
      void peakRssOf(child.pid).then((bytes) => {
        peakRssBytes = Math.max(peakRssBytes, bytes);
      });
    }
  }, MEMORY_LOOK_MS);

  for (let left = size; left > 0; left -= 1) add();
  return {
    running,
    findings,
    get started() {
      return all.length;
    },
    get peakRssBytes() {
      return peakRssBytes;
    },
    logs: () => all.map((worker) => worker.log()),
    pick: (random) => oneOf(running, random),
    kill: async (worker) => {
      await dismiss(worker, 'SIGKILL');
      replace(worker);
    },
    stop: async (worker) => {
      const how = await dismiss(worker, 'SIGTERM');
      // One that has not begun to listen ends at once.
      const wasListening = worker.log().includes('worker started');
      if (how !== 0 && (how !== 'SIGTERM' || wasListening))
        findings.push({ what: 'a worker did not stop with 0', detail: `${how}: ${worker.log().slice(-2_000)}` });
      replace(worker);
    },
    [Symbol.asyncDispose]: async () => {
      clearInterval(looking);
      await Promise.all(running.map((worker) => dismiss(worker, 'SIGKILL')));
    },
  };
}

/** @see https://man7.org/linux/man-pages/man5/proc_pid_status.5.html */
async function peakRssOf(pid: number | undefined): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  return 1024 * Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0);
}
