import { runIngest } from '../../workers/ingest.ts';
import type { Config } from '../config.ts';
import { longRunning } from './long-running.ts';

/** `ingest`: the long-running HTTP door. Ends with 0 after SIGTERM or SIGINT. */
export function ingest(config: Config): Promise<number> {
  return longRunning('ingest', config, runIngest);
}
