import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { orAbort } from '../abort.ts';
import type { Gate } from '../queue/gates.ts';
import type { JobEvent } from '../queue/job-events.ts';
import type { LaneStats } from '../queue/queue-stats.ts';
import { type Clock, MINUTE, SECOND } from '../time.ts';
import type { TokenRefresh } from '../weixin/credentials/issued-token.ts';

/** What is asked for when Prometheus scrapes. */
export interface MetricSources {
  readonly inFlight: () => number;
  readonly budget: () => { readonly usedBytes: number; readonly totalBytes: number };
  /** False while Redis is away or silent: then nothing is asked of it. */
  readonly redisUp: () => boolean;
  readonly queue: () => Promise<readonly LaneStats[]>;
  readonly gates: () => Promise<readonly Gate[]>;
  readonly mediaTtlMs: number;
  readonly now: Clock;
}

interface QueueFacts {
  readonly lanes: readonly LaneStats[];
  readonly closed: readonly Gate[];
}

export interface Metrics {
  observeJob(event: JobEvent): void;
  observeToken(refresh: TokenRefresh): void;
  /**
   * The text format of Prometheus, soon, whatever Redis does: the numbers of this worker always, those of the queue as far
   * as they can be had.
   */
  render(): Promise<{ readonly contentType: string; readonly body: string }>;
}

/** From a small image on a fast line to a long video on a slow one. */
const ATTEMPT_BUCKETS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];

/** Longer than this a scrape does not wait for the queue: Prometheus gives up after 10 s by default. */
const QUEUE_TIMEOUT_MS = SECOND;
/** A very long queue takes longer to read: so long its last numbers stand for it. */
const QUEUE_MAX_AGE_MS = 2 * MINUTE;

/** The numbers of one worker; those of the queue are the same from each. */
export function createMetrics(sources: MetricSources): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const archived = new Counter({ name: 'weixin_media_archived_total', help: 'Media archived.', registers });
  const bytes = new Counter({ name: 'weixin_media_bytes_total', help: 'Bytes of archived media.', registers });
  const failed = new Counter({
    name: 'weixin_media_failed_total',
    help: 'Attempts that failed, by failure.',
    labelNames: ['failure'],
    registers,
  });
  const dead = new Counter({
    name: 'weixin_media_dead_total',
    help: 'Media given up, by reason.',
    labelNames: ['reason'],
    registers,
  });
  const attempts = new Histogram({
    name: 'weixin_media_attempt_seconds',
    help: 'How long attempts take, by outcome.',
    labelNames: ['outcome'],
    buckets: ATTEMPT_BUCKETS,
    registers,
  });
  const tokens = new Counter({
    name: 'weixin_media_token_refresh_total',
    help: 'Calls of a token endpoint, by kind of credential and result.',
    labelNames: ['kind', 'result'],
    registers,
  });
  const inFlight = new Gauge({ name: 'weixin_media_in_flight', help: 'Jobs that this worker runs.', registers });
  const budgetUsed = new Gauge({
    name: 'weixin_media_memory_budget_used_bytes',
    help: 'Bytes set aside for bodies in flight.',
    registers,
  });
  const budgetTotal = new Gauge({ name: 'weixin_media_memory_budget_bytes', help: 'WORKER_MEMORY_BUDGET.', registers });
  const redisUp = new Gauge({
    name: 'weixin_media_redis_up',
    help: '1 while Redis answers; while it does not, what it knows is absent: depth, deadline, age and gates.',
    registers,
  });
  const depth = new Gauge({
    name: 'weixin_media_queue_depth',
    help: 'Jobs in the queue, by state.',
    labelNames: ['state'],
    registers,
  });
  const oldest = new Gauge({
    name: 'weixin_media_oldest_seconds',
    help: 'Age of the oldest media that waits.',
    registers,
  });
  const nearest = new Gauge({
    name: 'weixin_media_nearest_deadline_seconds',
    help: 'Time until the nearest deadline of what waits; absent when nothing waits.',
    registers,
  });
  const gates = new Gauge({
    name: 'weixin_media_gate_closed',
    help: '1 for an app whose gate is closed.',
    labelNames: ['app', 'reason'],
    registers,
  });

  let last: { readonly facts: QueueFacts; readonly at: number } | undefined;

  /** Returns `undefined` for what can't be had now. */
  async function readQueue(): Promise<QueueFacts | undefined> {
    if (!sources.redisUp()) return undefined;
    const asked = Promise.all([sources.queue(), sources.gates()]).then(([lanes, closed]): QueueFacts => {
      last = { facts: { lanes, closed }, at: sources.now() };
      return last.facts;
    });
    return orAbort(asked, AbortSignal.timeout(QUEUE_TIMEOUT_MS)).catch(() =>
      last !== undefined && sources.now() - last.at < QUEUE_MAX_AGE_MS ? last.facts : undefined,
    );
  }

  function setQueue(facts: QueueFacts | undefined): void {
    for (const gauge of [depth, gates]) gauge.reset();
    for (const gauge of [oldest, nearest]) gauge.remove();
    if (facts === undefined) return;
    const { lanes, closed } = facts;
    for (const state of ['waiting', 'delayed', 'active', 'failed'] as const) {
      depth.set(
        { state },
        lanes.reduce((sum, lane) => sum + lane[state], 0),
      );
    }
    const deadlines = lanes.flatMap(({ nearestDeadline }) => nearestDeadline ?? []);
    const first = Math.min(...deadlines);
    const now = sources.now();
    oldest.set(deadlines.length === 0 ? 0 : Math.max(0, (now - (first - sources.mediaTtlMs)) / SECOND));
    if (deadlines.length > 0) nearest.set((first - now) / SECOND);
    for (const { appId, reason } of closed) gates.set({ app: appId, reason }, 1);
  }

  return {
    observeJob: (event) => {
      switch (event.type) {
        case 'archived':
          archived.inc();
          bytes.inc(event.object.sizeBytes);
          attempts.observe({ outcome: 'archived' }, event.durationMs / SECOND);
          return;
        case 'retry':
        case 'wait':
          failed.inc({ failure: event.failure.code });
          attempts.observe({ outcome: event.type }, event.durationMs / SECOND);
          return;
        case 'dead':
          failed.inc({ failure: event.failure.code });
          dead.inc({ reason: event.reason });
          if (event.durationMs !== undefined) attempts.observe({ outcome: 'dead' }, event.durationMs / SECOND);
          return;
        default:
          return;
      }
    },
    observeToken: ({ kind, result }) => tokens.inc({ kind, result }),
    render: async () => {
      inFlight.set(sources.inFlight());
      const { usedBytes, totalBytes } = sources.budget();
      budgetUsed.set(usedBytes);
      budgetTotal.set(totalBytes);
      setQueue(await readQueue());
      redisUp.set(sources.redisUp() ? 1 : 0);
      return { contentType: registry.contentType, body: await registry.metrics() };
    },
  };
}
