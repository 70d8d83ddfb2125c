import { type DestinationStream, destination, type Logger, pino, stdSerializers } from 'pino';

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

/** Written as it comes but never waited for: a reader that is slow, gone or out of space must not stop the worker. */
function stderr(): DestinationStream {
  const stream = destination({ fd: 2, sync: false, maxLength: MAX_BUFFERED_BYTES });
  stream.on('error', () => undefined);
  return stream;
}

/** Lines beyond this are dropped while nobody takes them. */
const MAX_BUFFERED_BYTES = 8 * 1024 * 1024;
