import type { FastifyInstance } from 'fastify';
import type { IngestMetrics } from '../operate/ingest-metrics.ts';
import type { RequestHook } from './guard.ts';
import { described } from './openapi.ts';
import { sendProblem } from './problem.ts';

export interface HealthRoutesOptions {
  /** Why no media can be taken now; `undefined` while they can. */
  readonly unready: () => string | undefined;
  readonly metrics: IngestMetrics;
  readonly canRead: RequestHook;
}

const RETRY_AFTER_SECONDS = 1;

/** `/healthz` and `/readyz`, which are open, and `/metrics`. */
export function healthRoutes(app: FastifyInstance, { unready, metrics, canRead }: HealthRoutesOptions): void {
  const ok = { 200: { says: 'ok', type: 'text/plain' } };

  app.get(
    '/healthz',
    {
      schema: described({
        summary: 'Whether the process is well.',
        description: 'Also while Redis is away: a restart does not cure that.',
        tag: 'health',
        answers: ok,
      }),
    },
    (_request, reply) => reply.type('text/plain').send('ok\n'),
  );

  app.get(
    '/readyz',
    {
      schema: described({
        summary: 'Whether media can be handed in now.',
        tag: 'health',
        answers: ok,
        problems: { 503: 'it starts or stops, or Redis does not answer' },
      }),
    },
    (_request, reply) => {
      const trouble = unready();
      if (trouble === undefined) return reply.type('text/plain').send('ok\n');
      return sendProblem(reply, { status: 503, detail: trouble, retryAfter: RETRY_AFTER_SECONDS });
    },
  );

  app.get(
    '/metrics',
    {
      onRequest: canRead,
      schema: described({
        summary: 'The numbers of this process, for Prometheus.',
        tag: 'health',
        scope: 'read',
        answers: { 200: { says: 'the text format of Prometheus', type: 'text/plain' } },
      }),
    },
    async (_request, reply) => {
      const { contentType, body } = await metrics.render();
      return reply.header('content-type', contentType).send(body);
    },
  );
}
