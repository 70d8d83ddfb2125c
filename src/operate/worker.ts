import { runArchiveWorker, StartupError } from '../../workers/archive.ts';
import type { ConfigWithStore } from '../config.ts';
import { stopOnSignals } from '../lifecycle.ts';
import { createLogger } from '../log.ts';
import { CommandError, EXIT } from './command-error.ts';

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
  }
}
