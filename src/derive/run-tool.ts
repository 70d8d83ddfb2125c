import { type ChildProcess, spawn } from 'node:child_process';
import { timeLimit } from '../abort.ts';

/** Of what a tool says, only the end is kept. In characters. */
const MAX_SAID_LENGTH = 16_000;

export interface ToolCommand {
  /** The program, by its absolute path, and its arguments. No shell sees them. */
  readonly command: readonly [string, ...string[]];
  readonly folder: string;
  /** After this, it is killed. */
  readonly timeoutMs: number;
}

/** How a tool ended; `said` is the end of what it wrote to stdout and stderr. */
export type ToolEnd =
  | { readonly end: 'exited'; readonly code: number; readonly said: string }
  | { readonly end: 'killed'; readonly signal: NodeJS.Signals; readonly said: string }
  | { readonly end: 'too-slow'; readonly said: string }
  | { readonly end: 'not-started'; readonly said: string };

/**
 * Runs a program that may hang, flood us or be taken over by what it reads, and waits until it is gone.
 *
 * It gets no input and an environment of two variables: none of our secrets. It leads a process group of its own, which is
 * killed as a whole, by SIGKILL, when the time is up or `signal` aborts.
 *
 * @throws the signal's reason when it aborts, once the program is gone. Error when the machine can start no more.
 */
export async function runTool({ command, folder, timeoutMs }: ToolCommand, signal: AbortSignal): Promise<ToolEnd> {
  signal.throwIfAborted();
  using limit = timeLimit(signal, timeoutMs);
  const [file, ...args] = command;
  const child = spawn(file, args, {
    cwd: folder,
    env: { PATH: '/usr/local/bin:/usr/bin:/bin', LC_ALL: 'C' },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  let said = '';
  const listen = (chunk: Buffer): void => {
    said = (said + chunk.toString('latin1')).slice(-MAX_SAID_LENGTH);
  };
  child.stdout.on('data', listen);
  child.stderr.on('data', listen);

  const { promise: gone, resolve, reject } = Promise.withResolvers<ToolEnd>();
  const ended = (end: ToolEnd): void => resolve({ ...end, said: inOneLine(said) || end.said });
  child.once('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'EACCES') ended({ end: 'not-started', said: error.message });
    else reject(error);
  });
  child.once('close', (code, by) =>
    ended(by === null ? { end: 'exited', code: code ?? 1, said: '' } : { end: 'killed', signal: by, said: '' }),
  );
  const kill = (): void => killGroup(child);
  limit.signal.addEventListener('abort', kill, { once: true });
  try {
    const end = await gone;
    signal.throwIfAborted();
    return limit.expired ? { end: 'too-slow', said: end.said } : end;
  } finally {
    limit.signal.removeEventListener('abort', kill);
  }
}

/** The process and whatever it started. What has made itself a group of its own can't hold us up by its open pipes. */
function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // Nobody is left in the group.
  }
  child.stdout?.destroy();
  child.stderr?.destroy();
}

function inOneLine(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they would control the terminal of who reads it
  return text.replace(/[\u0000-\u001f\u007f-\u009f]+/g, ' ').trim();
}
