import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { SECOND } from '../time.ts';

/** A real worker process. */
export interface WorkerProcess {
  readonly process: ChildProcess;
  /** Resolves with the exit code, or the signal that ended it. */
  readonly exited: Promise<number | NodeJS.Signals>;
  /** Everything it has written to stderr: its log. */
  log(): string;
  /** Resolves once a line of the log holds `text`. @throws Error when the process ends first. */
  said(text: string): Promise<void>;
  /** SIGTERM, and SIGKILL after `graceMs`. */
  stop(graceMs?: number): Promise<void>;
}

const MAX_LOG_LENGTH = 64 * 1024 * 1024;

/** The command line of this program, from the sources or as built. */
export function cliPath(): string {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  return fileURLToPath(new URL(`../operate/cli.${extension}`, import.meta.url));
}

/**
 * @param environment the whole environment of the process, beside PATH.
 * @param stderr a file descriptor that takes its log in place of `log()`.
 */
export function startWorkerProcess(
  environment: Readonly<Record<string, string>>,
  stderr: 'pipe' | number = 'pipe',
  command: 'worker' | 'ingest' | 'catalog' | 'derive' = 'worker',
): WorkerProcess {
  const child = spawn(process.execPath, [cliPath(), command], {
    stdio: ['ignore', 'ignore', stderr],
    env: { ...environment },
    // A folder without a .env that could change its settings.
    cwd: '/',
  });
  let log = '';
  const listeners = new Set<() => void>();
  child.stderr?.on('data', (chunk: Buffer) => {
    log = (log + chunk.toString()).slice(-MAX_LOG_LENGTH);
    for (const listener of listeners) listener();
  });
  const { promise: exited, resolve } = Promise.withResolvers<number | NodeJS.Signals>();
  child.once('exit', (code, signal) => {
    resolve(code ?? signal ?? 1);
    for (const listener of listeners) listener();
  });

  async function said(text: string): Promise<void> {
    const heard = Promise.withResolvers<void>();
    const listen = (): void => {
      if (log.includes(text)) heard.resolve();
      else if (child.exitCode !== null || child.signalCode !== null)
        heard.reject(new Error(`the worker ended without saying "${text}":\n${log}`));
    };
    listeners.add(listen);
    listen();
    try {
      await heard.promise;
    } finally {
      listeners.delete(listen);
    }
  }

  async function stop(graceMs = 40 * SECOND): Promise<void> {
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), graceMs);
    await exited;
    clearTimeout(timer);
  }

  return { process: child, exited, log: () => log, said, stop };
}
