import type { FAILURES, FailureCode } from '../failure.ts';
import { between, DAY, HOUR, MINUTE, type Random, SECOND } from '../time.ts';

/** The failures that close an app's gate: those with the action `wait`. */
export type GateReason = {
  [Code in FailureCode]: (typeof FAILURES)[Code]['action'] extends 'wait' ? Code : never;
}[FailureCode];

interface GateRule {
  /** How long after the closing, or after a failed probe, one job tries again. */
  readonly probeAfterMs: number;
  /** Drawn on top, so that apps closed together are not probed together. */
  readonly jitterMs: number;
  /** True where the limit is renewed at midnight in Beijing: then a probe is made, whatever the interval. */
  readonly renewedAtMidnight?: true;
}

/** Somebody has to change something, and WeChat takes 5 to 10 minutes to notice. */
const BY_HAND: GateRule = { probeAfterMs: 5 * MINUTE, jitterMs: MINUTE };

export const GATE_RULES: Readonly<Record<GateReason, GateRule>> = {
  // No page says when the day begins; midnight in Beijing is common belief, hence the hourly look.
  'quota-exhausted': { probeAfterMs: HOUR, jitterMs: 5 * MINUTE, renewedAtMidnight: true },
  'token-quota-exhausted': { probeAfterMs: HOUR, jitterMs: 5 * MINUTE, renewedAtMidnight: true },
  'rate-limited': { probeAfterMs: MINUTE, jitterMs: 10 * SECOND },
  'app-secret-invalid': BY_HAND,
  'app-secret-frozen': BY_HAND,
  'app-id-invalid': BY_HAND,
  'app-not-configured': { probeAfterMs: MINUTE, jitterMs: 10 * SECOND },
  'ip-not-allowed': BY_HAND,
  'ip-confirmation-pending': BY_HAND,
  'api-unauthorized': BY_HAND,
  'app-restricted': BY_HAND,
  'authorization-withdrawn': BY_HAND,
  'component-misconfigured': BY_HAND,
  // A ticket comes every ten minutes, and opens the gate by itself.
  'component-ticket-missing': { probeAfterMs: MINUTE, jitterMs: 10 * SECOND },
  // A service renews its token by itself, or within moments of somebody's wish.
  'external-token-stale': { probeAfterMs: MINUTE, jitterMs: 10 * SECOND },
  'access-point-retired': BY_HAND,
  'cloud-call-misconfigured': BY_HAND,
};

export function isGateReason(code: FailureCode): code is GateReason {
  return Object.hasOwn(GATE_RULES, code);
}

/** Returns when the next probe of a gate may be made, as a Unix time in milliseconds. */
export function nextProbeAt(reason: GateReason, now: number, random: Random): number {
  const rule = GATE_RULES[reason];
  const jitter = between(0, rule.jitterMs, random);
  const regular = now + rule.probeAfterMs + jitter;
  return rule.renewedAtMidnight === true ? Math.min(regular, nextMidnightInBeijing(now) + jitter) : regular;
}

/** Returns true when a job may run although its app's gate is closed: as the probe, or because its time runs out. */
export function runsBehindGate(
  { probeAt }: { readonly probeAt: number },
  now: number,
  deadline: number,
  leadMs: number,
): boolean {
  return now >= probeAt || now >= deadline - leadMs;
}

/** Failures that say nothing about whether WeChat would serve this app. */
const BEFORE_THE_GATE: ReadonlySet<FailureCode> = new Set<FailureCode>([
  'weixin-busy',
  'weixin-unreachable',
  'weixin-timeout',
  'weixin-bad-gateway',
  'weixin-unexpected-reply',
  'token-rejected',
  'token-unavailable',
  'token-service-failed',
  'cloud-call-not-ready',
  'hd-voice-refused',
  'worker-lost',
  'unclassified',
]);

/** Returns true when an attempt that ended so shows that WeChat serves its app, whatever became of the media. */
export function passedTheGate(code: FailureCode): boolean {
  return !BEFORE_THE_GATE.has(code);
}

const BEIJING_OFFSET_MS = 8 * HOUR;

/** Beijing keeps UTC+8 all year. */
export function nextMidnightInBeijing(now: number): number {
  return Math.floor((now + BEIJING_OFFSET_MS) / DAY + 1) * DAY - BEIJING_OFFSET_MS;
}
