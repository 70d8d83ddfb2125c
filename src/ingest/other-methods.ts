import { METHODS as NODE_METHODS } from 'node:http';
import type { FastifyInstance } from 'fastify';
import { sendProblem } from './problem.ts';

/** All that node lets through: a CONNECT it ends by itself. */
const METHODS = NODE_METHODS.filter((method) => method !== 'CONNECT');

/**
 * Answers 405 to the methods that a path does not know; fastify by itself would say that the path is not there.
 *
 * @returns what adds them: to be called when all routes are registered.
 */
export function refuseOtherMethods(app: FastifyInstance): () => void {
  for (const method of METHODS) {
    if (!app.supportedMethods.includes(method)) app.addHttpMethod(method, { hasBody: true });
  }
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
