import { runArchiveWorker, StartupError } from '../../workers/archive.ts';
import type { ConfigWithStore } from '../config.ts';
import { stopOnSignals } from '../lifecycle.ts';
import { createLogger } from '../log.ts';
import { SECOND } from '../time.ts';
import { CommandError, EXIT } from './command-error.ts';

/** For the last lines of the log to be taken. What nobody reads must not keep the process. */
const LAST_WORDS_MS = 2 * SECOND;

/** `worker`: the long-running archive worker. Ends with 0 after SIGTERM or SIGINT. */
export async function worker(config: ConfigWithStore): Promise<number> {
  const stop = stopOnSignals();
  const log = createLogger(config.logLevel, 'worker');
  try {
    await runArchiveWorker(config, log, stop.signal);
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
