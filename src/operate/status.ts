import { type OutboxDepth, readOutboxDepth } from '../catalog/outbox.ts';
import type { Config } from '../config.ts';
import { FAILURES } from '../failure.ts';
import type { Gate } from '../queue/gates.ts';
import { DEADLINE_PRECISION_MS } from '../queue/priority.ts';
import { type LaneStats, readQueueStats } from '../queue/queue-stats.ts';
import { iso, SECOND } from '../time.ts';
import { EXIT } from './command-error.ts';
import { gateLines } from './media-story.ts';
import { openQueue } from './open-queue.ts';
import { byteCount, duration, type Field, fields, type Output, table } from './output.ts';

/** Over how many minutes `status` sums what the fleet did. */
const THROUGHPUT_MINUTES = 15;

/** `status`: what waits, what is late, which gates are closed, what the fleet does. */
export async function status(config: Config, output: Output): Promise<number> {
  await using queue = await openQueue(config);
  const { redis, keys, lanes, gates, fleet, throughput, deadLetterIndex } = queue;
  const appIds = config.accounts.map(({ appId }) => appId);
  const [stats, closed, workers, done, deadLetters, outbox] = await Promise.all([
    readQueueStats(redis, keys, lanes, appIds),
    gates.list(),
    fleet.list(),
    throughput.read(THROUGHPUT_MINUTES),
    deadLetterIndex.count(),
    readOutboxDepth(redis, keys),
  ]);
  const now = Date.now();
  const apps = stats.map((lane) => {
    const recent = done.get(lane.appId ?? '') ?? { archived: 0, retry: 0, wait: 0, dead: 0, bytes: 0 };
    return { ...lane, appId: lane.appId ?? 'inbox', ...deadlineFacts(lane, config.media.ttlMs, now), recent };
  });
  const sum = (field: 'waiting' | 'delayed' | 'active' | 'failed'): number =>
    stats.reduce((total, lane) => total + lane[field], 0);
  const nearest = stats.flatMap(({ nearestDeadline }) => nearestDeadline ?? []);
  const report = {
    waiting: sum('waiting'),
    delayed: sum('delayed'),
    active: sum('active'),
    failed: sum('failed'),
    deadLetters,
    ...(nearest.length === 0 ? {} : deadlineFacts({ nearestDeadline: Math.min(...nearest) }, config.media.ttlMs, now)),
    gates: closed.map((gate) => ({
      ...gate,
      closedAt: iso(gate.closedAt),
      probeAt: iso(gate.probeAt),
      hint: FAILURES[gate.reason].hint,
    })),
    workers,
    outbox: outboxFacts(outbox, now),
    recentMinutes: THROUGHPUT_MINUTES,
    apps,
  };
  output.result(report, () => describe(report, closed, now));
  return EXIT.done;
}

/** `oldestSeconds` is the age of the oldest media that waits; both are right within a minute. */
function deadlineFacts(
  { nearestDeadline }: Pick<LaneStats, 'nearestDeadline'>,
  mediaTtlMs: number,
  now: number,
): object {
  if (nearestDeadline === undefined) return {};
  return {
    nearestDeadline: iso(nearestDeadline),
    nearestDeadlineSeconds: Math.round((nearestDeadline - now) / SECOND),
    oldestSeconds: Math.max(0, Math.round((now - (nearestDeadline - mediaTtlMs)) / SECOND)),
  };
}

/** What waits for the catalog process, and how long the first of it has. */
function outboxFacts({ entries, since }: OutboxDepth, now: number): Report['outbox'] {
  return {
    entries,
    ...(since === undefined ? {} : { oldestSeconds: Math.max(0, Math.round((now - since) / SECOND)) }),
  };
}

interface Report {
  readonly waiting: number;
  readonly delayed: number;
  readonly active: number;
  readonly failed: number;
  readonly deadLetters: number;
  readonly outbox: { readonly entries: number; readonly oldestSeconds?: number };
  readonly workers: readonly { host: string; pid: number; version: string; inFlight: number; concurrency: number }[];
  readonly apps: readonly {
    appId: string;
    waiting: number;
    delayed: number;
    active: number;
    failed: number;
    nearestDeadlineSeconds?: number;
    recent: { archived: number; retry: number; wait: number; dead: number; bytes: number };
  }[];
}

function describe(report: Report, closed: readonly Gate[], now: number): string {
  const { waiting, delayed, active, failed, deadLetters, workers, apps } = report;
  const parts = [
    `waiting ${waiting}, delayed ${delayed}, active ${active}, failed ${failed}`,
    `dead letters ${deadLetters}, workers ${workers.length}`,
  ];
  const sections = [[parts.join(', '), ...outboxText(report.outbox)].join('\n')];
  if (apps.length > 0) sections.push(whatWaits(apps), whatWasDone(apps));
  if (closed.length > 0) {
    const gates = closed.map((gate): Field => [gate.appId, ...gateLines(gate, now)]);
    sections.push(`closed gates\n${fields(gates)}`);
  }
  if (workers.length > 0) {
    const rows = workers.map(({ host, pid, version, inFlight, concurrency }) => [
      host,
      pid,
      version,
      inFlight,
      concurrency,
    ]);
    sections.push(table(['worker', 'pid', 'version', 'active', 'of'], rows));
  }
  return sections.join('\n\n');
}

/** Long before it is full. */
const OUTBOX_LATE_SECONDS = 900;

function outboxText({ entries, oldestSeconds = 0 }: Report['outbox']): string[] {
  if (entries === 0) return [];
  const isLate = oldestSeconds >= OUTBOX_LATE_SECONDS;
  const late = isLate ? ' (late: does a catalog process run?)' : '';
  return [`outbox ${entries}, the first for ${duration(oldestSeconds * SECOND)}${late}`];
}

function whatWaits(apps: Report['apps']): string {
  const rows = apps.map(({ appId, waiting, delayed, active, failed, nearestDeadlineSeconds: nearest }) => {
    return [appId, waiting, delayed, active, failed, timeLeft(nearest)];
  });
  return table(['app', 'waiting', 'delayed', 'active', 'failed', 'nearest deadline'], rows);
}

/** Deadlines are known within a minute: what may not be late yet is not called late. */
function timeLeft(seconds: number | undefined): string {
  if (seconds === undefined) return '-';
  if (seconds >= 0) return duration(seconds * SECOND);
  return seconds * SECOND >= -DEADLINE_PRECISION_MS ? 'now' : `${duration(seconds * SECOND)} (late)`;
}

function whatWasDone(apps: Report['apps']): string {
  const rows = apps.map(({ appId, recent: { archived, bytes, retry, wait, dead } }) => {
    return [appId, archived, byteCount(bytes), retry, wait, dead];
  });
  return table([`in ${THROUGHPUT_MINUTES} min`, 'archived', 'bytes', 'retry', 'wait', 'dead'], rows);
}
