import type { ConfigWithStore } from '../config.ts';
import { stopWithParent } from '../lifecycle.ts';
import { longRunning } from './long-running.ts';

/** `worker`: the long-running archive worker, or several of them. Ends with 0 after SIGTERM or SIGINT. */
export async function worker(config: ConfigWithStore): Promise<number> {
  if (config.worker.processes > 1) {
    const { superviseWorkers } = await import('./worker-processes.ts');
    return longRunning('supervisor', config, superviseWorkers);
  }
  // Loaded here, since a process that only watches over others needs none of it.
  const { runArchiveWorker } = await import('../../workers/archive.ts');
  const parent = stopWithParent();
  try {
    return await longRunning('worker', config, (_, log, stop) =>
      runArchiveWorker(config, log, AbortSignal.any([stop, parent.signal])),
    );
  } finally {
    parent.release();
  }
}
