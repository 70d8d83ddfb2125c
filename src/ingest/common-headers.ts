import type { FastifyReply } from 'fastify';

/** What every answer carries. */
export function setCommonHeaders(reply: FastifyReply): void {
  reply.headers({
    'x-request-id': reply.request.id,
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  });
}
