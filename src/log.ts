import { fstatSync, write } from 'node:fs';
import { type DestinationStream, type Logger, pino, stdSerializers } from 'pino';

export type { Logger } from 'pino';

/**
 * Makes the log: one JSON object a line, on stderr, so that stdout is for results alone.
 *
 * Secrets need no redaction rules here: they are a type that prints `[redacted]`, and no adapter puts one into a text. Of
 * an error only what is said of it is written: ioredis hangs whole commands onto its own, arguments and all.
 */
export function createLogger(level: string, component: string): Logger {
  return pino(
    {
      level,
      base: { component },
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: describeError },
    },
    stderr(),
  );
}

function describeError(error: Error): object {
  const { type, message, stack, code } = stdSerializers.err(error) as { code?: unknown } & Record<string, unknown>;
  return { type, message, stack, code };
}

/** Lines beyond this are dropped while nobody takes them. */
const MAX_BUFFERED_CHARS = 8 * 1024 * 1024;

/** PIPE_BUF of Linux: up to so many bytes come out whole, also where several processes write into one pipe that is full. */
const WHOLE_IN_PIPE = 4096;

/**
 * Written as it comes but never waited for: a reader that is slow, gone or out of space must not stop the worker, nor
 * keep it when it has ended. Lines that can't be written are dropped; those after them are tried again.
 *
 * pino's own destination writes all it still holds before the process may end, for ever if it can't.
 */
function stderr(): DestinationStream {
  const put = isPipe() ? putIntoPipe : putIntoFile;
  const atOnce = put === putIntoPipe ? WHOLE_IN_PIPE : Number.POSITIVE_INFINITY;
  // Each write tells its own end; without a listener the first one that fails would end the process.
  if (put === putIntoPipe) process.stderr.on('error', () => undefined);
  const lines: string[] = [];
  let chars = 0;
  let busy = false;

  function putNext(): void {
    busy = lines.length > 0;
    if (!busy) return;
    const text = takeLines();
    chars -= text.length;
    put(Buffer.from(text), putNext);
  }

  /** One line at least, however long. */
  function takeLines(): string {
    let size = 0;
    const end = lines.findIndex((line, index) => {
      size += Buffer.byteLength(line);
      return index > 0 && size > atOnce;
    });
    return lines.splice(0, end === -1 ? lines.length : end).join('');
  }

  return {
    write: (line) => {
      if (chars + line.length > MAX_BUFFERED_CHARS) return;
      lines.push(line);
      chars += line.length;
      if (busy) return;
      busy = true;
      // With what else is said in this turn of the event loop.
      setImmediate(putNext);
    },
  };
}

const STDERR = 2;
const EAGAIN_PAUSE_MS = 50;

function isPipe(): boolean {
  try {
    const facts = fstatSync(STDERR);
    return facts.isFIFO() || facts.isSocket();
  } catch {
    // Closed by whoever started us.
    return false;
  }
}

/** Never blocks. A write by `fs` would hold a thread while nobody reads, and with it the end of the process. */
function putIntoPipe(bytes: Buffer, done: () => void): void {
  process.stderr.write(bytes, () => done());
}

/** Off the main thread, on which `process.stderr` writes to files and terminals. */
function putIntoFile(bytes: Buffer, done: () => void): void {
  write(STDERR, bytes, (error, written) => {
    // A terminal that another program has set so.
    if (error?.code === 'EAGAIN') setTimeout(() => putIntoFile(bytes, done), EAGAIN_PAUSE_MS);
    else if (error === null && written < bytes.byteLength) putIntoFile(bytes.subarray(written), done);
    else done();
  });
}
