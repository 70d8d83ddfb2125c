import type { DeadLetterFilter } from '../dead-letter/dead-letter-index.ts';

/** True when a filter narrows nothing: what is done by it would concern every dead letter, and must be meant. */
export function matchesAll({ limit: _limit, ...narrowing }: DeadLetterFilter): boolean {
  return Object.values(narrowing).every((value) => value === undefined);
}
