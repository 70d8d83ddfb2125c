import { StartupError } from '../../workers/startup-error.ts';
import type { Config } from '../config.ts';
import { stopOnSignals } from '../lifecycle.ts';
import { createLogger, type Logger } from '../log.ts';
import { SECOND } from '../time.ts';
import { CommandError, EXIT } from './command-error.ts';

/** For the last lines of the log to be taken. What nobody reads must not keep the process. */
const LAST_WORDS_MS = 2 * SECOND;

/** Runs a process until SIGTERM or SIGINT, then ends it with 0. @throws CommandError when it can't be started. */
export async function longRunning<C extends Config>(
  component: string,
  config: C,
  run: (config: C, log: Logger, stop: AbortSignal) => Promise<void>,
): Promise<number> {
  const stop = stopOnSignals();
  const log = createLogger(config.logLevel, component);
  try {
    await run(config, log, stop.signal);
    return EXIT.done;
  } catch (error) {
    if (!(error instanceof StartupError)) throw error;
    log.fatal(error.message);
    throw new CommandError(error.message);
  } finally {
    stop.release();
    setTimeout(() => process.exit(), LAST_WORDS_MS).unref();
  }
}
