import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Admission } from '../queue/door.ts';
import { SECOND } from '../time.ts';

/** One request, once it has been answered. */
export interface AnsweredRequest {
  /** The pattern of its path, never the path itself; `none` where there is no such route. */
  readonly route: string;
  readonly status: number;
  readonly durationMs: number;
}

export interface IngestMetrics {
  observeRequest(request: AnsweredRequest): void;
  observeAdmission(admission: Admission): void;
  observePush(push: AnsweredPush): void;
  /** The text format of Prometheus. Asks nobody. */
  render(): Promise<{ readonly contentType: string; readonly body: string }>;
}

/** A push of WeChat's, once it has been answered. */
export interface AnsweredPush {
  /** What it came to. */
  readonly result: string;
  /** How many media of it are queued now, or were already. */
  readonly media: number;
}

/** From a request that is refused to one that replays a thousand letters. */
const REQUEST_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60];

/** The numbers of one ingest process. */
export function createIngestMetrics(redisUp: () => boolean): IngestMetrics {
  const registry = new Registry();
  const registers = [registry];
  const requests = new Counter({
    name: 'weixin_media_ingest_requests_total',
    help: 'Requests answered, by route and status.',
    labelNames: ['route', 'status'],
    registers,
  });
  const seconds = new Histogram({
    name: 'weixin_media_ingest_seconds',
    help: 'How long requests take, by route.',
    labelNames: ['route'],
    buckets: REQUEST_BUCKETS,
    registers,
  });
  const jobs = new Counter({
    name: 'weixin_media_ingest_jobs_total',
    help: 'Jobs handed in, by what became of them: accepted, duplicate or rejected.',
    labelNames: ['result'],
    registers,
  });
  const pushes = new Counter({
    name: 'weixin_media_pushes_total',
    help: 'Message pushes of WeChat, by what they came to.',
    labelNames: ['result'],
    registers,
  });
  const pushedMedia = new Counter({
    name: 'weixin_media_pushed_media_total',
    help: 'Media of message pushes that are queued, or were already.',
    registers,
  });
  const up = new Gauge({ name: 'weixin_media_redis_up', help: '1 while Redis answers.', registers });

  return {
    observeRequest: ({ route, status, durationMs }) => {
      requests.inc({ route, status });
      seconds.observe({ route }, durationMs / SECOND);
    },
    observeAdmission: ({ accepted, duplicates, rejected }) => {
      jobs.inc({ result: 'accepted' }, accepted);
      jobs.inc({ result: 'duplicate' }, duplicates);
      jobs.inc({ result: 'rejected' }, rejected.length);
    },
    observePush: ({ result, media }) => {
      pushes.inc({ result });
      pushedMedia.inc(media);
    },
    render: async () => {
      up.set(redisUp() ? 1 : 0);
      return { contentType: registry.contentType, body: await registry.metrics() };
    },
  };
}
