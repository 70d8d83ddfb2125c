/** What the dispatcher knows of a lane. */
export interface LaneState {
  /** May hold a job that can run now. Set by a marker, cleared by an empty-handed take. */
  ready: boolean;
  /** When its next delayed job is due, as a Unix time in milliseconds. */
  nextAt: number | undefined;
  /** Its jobs that this worker runs. */
  running: number;
  /** The number of the last turn it had. */
  lastTurn: number;
}

/**
 * Chooses whose turn it is: of the lanes with work, the one with the fewest jobs running here, and of these the one that
 * has waited longest.
 *
 * So a tenant with a hundred thousand jobs does not delay one with ten: the next slot that comes free is the small
 * one's. Within a lane the earliest deadline goes first, by the priority of its jobs.
 */
export function chooseLane<T extends LaneState>(lanes: Iterable<T>, isOpen: (lane: T) => boolean): T | undefined {
  let best: T | undefined;
  for (const lane of lanes) {
    if (lane.ready && (best === undefined || goesBefore(lane, best)) && isOpen(lane)) best = lane;
  }
  return best;
}

/** True when `chooseLane` would choose this one. Looks no further than to the first that goes before it. */
export function isTurnOf<T extends LaneState>(lane: T, lanes: Iterable<T>, isOpen: (lane: T) => boolean): boolean {
  if (!lane.ready || !isOpen(lane)) return false;
  for (const other of lanes) if (other.ready && goesBefore(other, lane) && isOpen(other)) return false;
  return true;
}

function goesBefore(lane: LaneState, other: LaneState): boolean {
  return lane.running < other.running || (lane.running === other.running && lane.lastTurn < other.lastTurn);
}
