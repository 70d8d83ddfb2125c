import type { Pulse } from '../redis/pulse.ts';
import { SECOND, type Stopwatch } from '../time.ts';
import type { HealthSources } from './health-server.ts';

export interface HealthFacts {
  /** False while the worker starts or stops. */
  readonly working: () => boolean;
  readonly connected: () => boolean;
  readonly pulse: Pick<Pulse, 'isSilent' | 'answeringMs'>;
  /** By the stopwatch, when the loop of the worker last came round. */
  readonly lastTurnAt: () => number;
  readonly elapsed: Stopwatch;
}

/** A worker whose loop has not come round for so long is stuck. */
const STUCK_MS = 60 * SECOND;

/**
 * Judges a worker. A Redis that is away or frozen makes it unready: no work can be done, and none is sent its way. It is
 * unhealthy only if its loop stands still although Redis has answered all the while: a restart cures nothing else, and
 * a whole fleet that is restarted for its Redis loses what it has in hand.
 */
export function judgeHealth(facts: HealthFacts): Pick<HealthSources, 'unhealthy' | 'unready'> {
  const { working, connected, pulse, lastTurnAt, elapsed } = facts;
  return {
    unhealthy: () =>
      working() && pulse.answeringMs > STUCK_MS && elapsed() - lastTurnAt() > STUCK_MS
        ? 'the worker is stuck: no turn for a minute'
        : undefined,
    unready: () => {
      if (!working()) return 'starting or stopping';
      if (!connected()) return 'Redis is not connected';
      return pulse.isSilent ? 'Redis does not answer' : undefined;
    },
  };
}
