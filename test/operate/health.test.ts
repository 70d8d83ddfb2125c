import { expect, test } from 'vitest';
import { type HealthFacts, judgeHealth } from '../../src/operate/health.ts';
import { HOUR, SECOND } from '../../src/time.ts';

const NOW = 10 * HOUR;

interface Situation {
  readonly working?: boolean;
  readonly connected?: boolean;
  /** How long Redis has answered; 0: it is silent. */
  readonly answeringMs?: number;
  /** How long ago the loop came round. */
  readonly turnMs?: number;
}

function judge({ working = true, connected = true, answeringMs = HOUR, turnMs = 0 }: Situation): unknown {
  const facts: HealthFacts = {
    working: () => working,
    connected: () => connected,
    pulse: { isSilent: answeringMs === 0, answeringMs },
    lastTurnAt: () => NOW - turnMs,
    elapsed: () => NOW,
  };
  const { unhealthy, unready } = judgeHealth(facts);
  return { unhealthy: unhealthy(), unready: unready() };
}

const STUCK = 'the worker is stuck: no turn for a minute';
const SILENT = 'Redis does not answer';
const STARTING = 'starting or stopping';

test.each<[string, Situation, string | undefined, string | undefined]>([
  ['at work', {}, undefined, undefined],
  ['between two turns', { turnMs: 60 * SECOND }, undefined, undefined],
  ['whose loop stands still while Redis answers', { turnMs: 61 * SECOND }, STUCK, undefined],
  ['whose Redis is frozen, for however long', { answeringMs: 0, turnMs: HOUR }, undefined, SILENT],
  ['whose Redis has just come back', { answeringMs: 2 * SECOND, turnMs: HOUR }, undefined, undefined],
  ['whose loop stands still after that', { answeringMs: 61 * SECOND, turnMs: HOUR }, STUCK, undefined],
  ['whose Redis is away', { connected: false, answeringMs: 0, turnMs: HOUR }, undefined, 'Redis is not connected'],
  ['that starts or stops', { working: false, turnMs: HOUR }, undefined, STARTING],
])('a worker %s', (_what, situation, unhealthy, unready) => {
  expect(judge(situation)).toEqual({ unhealthy, unready });
});
