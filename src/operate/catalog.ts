import { runCatalog } from '../../workers/catalog.ts';
import type { ConfigWithStore } from '../config.ts';
import { longRunning } from './long-running.ts';

/** `catalog`: the long-running catalog process. Ends with 0 after SIGTERM or SIGINT. */
export function catalog(config: ConfigWithStore): Promise<number> {
  return longRunning('catalog', config, runCatalog);
}
