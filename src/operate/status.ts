import type { Config } from '../config.ts';
import { FAILURES } from '../failure.ts';
import type { Gate } from '../queue/gates.ts';
import { type LaneStats, readQueueStats } from '../queue/queue-stats.ts';
import { iso, SECOND } from '../time.ts';
import { EXIT } from './command-error.ts';
import { openQueue } from './open-queue.ts';
import { byteCount, duration, type Output, table } from './output.ts';

/** Over how many minutes `status` sums what the fleet did. */
const THROUGHPUT_MINUTES = 15;

/** `status`: what waits, what is late, which gates are closed, what the fleet does. */
export async function status(config: Config, output: Output): Promise<number> {
  await using queue = await openQueue(config);
  const { redis, keys, lanes, gates, fleet, throughput, deadLetterIndex } = queue;
  const appIds = config.accounts.map(({ appId }) => appId);
  const [stats, closed, workers, done, deadLetters] = await Promise.all([
    readQueueStats(redis, keys, lanes, appIds),
    gates.list(),
    fleet.list(),
    throughput.read(THROUGHPUT_MINUTES),
    deadLetterIndex.count(),
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
    recentMinutes: THROUGHPUT_MINUTES,
    apps,
  };
  output.result(report, () => describe(report, closed, now));
  return EXIT.done;
}

/** `oldestSeconds` is the age of the oldest media that waits; both are right within five minutes. */
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

interface Report {
  readonly waiting: number;
  readonly delayed: number;
  readonly active: number;
  readonly deadLetters: number;
  readonly workers: readonly { host: string; pid: number; inFlight: number; concurrency: number }[];
  readonly apps: readonly {
    appId: string;
    waiting: number;
    delayed: number;
    active: number;
    nearestDeadlineSeconds?: number;
    recent: { archived: number; retry: number; dead: number; bytes: number };
  }[];
}

function describe(report: Report, closed: readonly Gate[], now: number): string {
  const { waiting, delayed, active, deadLetters, workers, apps } = report;
  const lines = [
    `waiting ${waiting}, delayed ${delayed}, running ${active}, dead letters ${deadLetters}, workers ${workers.length}`,
  ];
  const rows = apps.map(({ appId, nearestDeadlineSeconds: nearest, recent, ...lane }) => [
    appId,
    lane.waiting,
    lane.delayed,
    lane.active,
    nearest === undefined ? '-' : nearest < 0 ? `${duration(nearest * SECOND)} (late)` : duration(nearest * SECOND),
    recent.archived,
    byteCount(recent.bytes),
    recent.retry,
    recent.dead,
  ]);
  const minutes = `${THROUGHPUT_MINUTES} min`;
  if (rows.length > 0) {
    lines.push(
      '',
      table(
        [
          'app',
          'waiting',
          'delayed',
          'running',
          'nearest deadline',
          `archived/${minutes}`,
          `bytes/${minutes}`,
          `retries/${minutes}`,
          `dead/${minutes}`,
        ],
        rows,
      ),
    );
  }
  for (const { appId, reason, detail, closedAt, probeAt } of closed) {
    const why = detail === undefined ? reason : `${reason}: ${detail}`;
    lines.push(
      '',
      `gate of ${appId} closed for ${duration(now - closedAt)} (${why}), next probe in ${duration(Math.max(0, probeAt - now))}`,
      `  ${FAILURES[reason].hint}`,
    );
  }
  for (const { host, pid, inFlight, concurrency } of workers)
    lines.push('', `worker ${host}:${pid} runs ${inFlight} of ${concurrency}`);
  return lines.join('\n');
}
