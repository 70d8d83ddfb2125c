import { runDerive } from '../../workers/derive.ts';
import type { ConfigWithStore } from '../config.ts';
import { dayOf } from '../store/object-keys.ts';
import { iso } from '../time.ts';
import { longRunning } from './long-running.ts';

/** `derive`: the long-running process that makes files of archived media. Ends with 0 after SIGTERM or SIGINT. */
export function derive(config: ConfigWithStore, { since }: { readonly since?: number }): Promise<number> {
  const first = since === undefined ? undefined : dayOf(iso(since));
  return longRunning('derive', config, (own: ConfigWithStore, log, stop) => runDerive(own, log, stop, first));
}
