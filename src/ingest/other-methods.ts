import type { FastifyInstance, HTTPMethods } from 'fastify';
import { sendProblem } from './problem.ts';

const METHODS: readonly HTTPMethods[] = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'];

/**
 * Answers 405 to the methods that a path does not know; fastify by itself would say that the path is not there.
 *
 * @returns what adds them: to be called when all routes are registered.
 */
export function refuseOtherMethods(app: FastifyInstance): () => void {
  const urls = new Set<string>();
  app.addHook('onRoute', ({ url }) => void urls.add(url));
  return () => {
    for (const url of [...urls]) {
      const known = METHODS.filter((method) => app.hasRoute({ url, method }));
      const allow = known.join(', ');
      app.route({
        url,
        method: METHODS.filter((method) => !known.includes(method)),
        // Before a body is read.
        onRequest: async (_request, reply) =>
          sendProblem(reply.header('allow', allow), { status: 405, detail: `this path knows ${allow}` }),
        handler: () => undefined,
      });
    }
  };
}
