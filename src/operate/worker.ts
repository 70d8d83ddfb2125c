import { runArchiveWorker } from '../../workers/archive.ts';
import type { ConfigWithStore } from '../config.ts';
import { longRunning } from './long-running.ts';

/** `worker`: the long-running archive worker. Ends with 0 after SIGTERM or SIGINT. */
export function worker(config: ConfigWithStore): Promise<number> {
  return longRunning('worker', config, runArchiveWorker);
}
