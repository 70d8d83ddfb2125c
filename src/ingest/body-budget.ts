import type { FastifyReply, FastifyRequest } from 'fastify';
import type { RequestHook } from './guard.ts';
import { sendProblem } from './problem.ts';

/** Bytes of all bodies that are being read or worked on: some hundred thousand jobs. Parsed they take several times that. */
const MAX_BYTES = 64 * 1024 * 1024;

/**
 * Turns requests away while too many bodies are under way, so that memory is bounded whatever comes. For hooks that run
 * before the body is read.
 *
 * @param largestBytes what a body may be that does not say how long it is.
 */
export function createBodyBudget(largestBytes: number, maxBytes = MAX_BYTES): RequestHook {
  let used = 0;

  return async (request: FastifyRequest, reply: FastifyReply) => {
    const bytes = Math.min(declaredBytes(request) ?? largestBytes, largestBytes);
    if (used + bytes > maxBytes) {
      return sendProblem(reply, { status: 503, detail: 'too many bodies are under way', retryAfter: 1 });
    }
    used += bytes;
    reply.raw.once('close', () => {
      used -= bytes;
    });
    return undefined;
  };
}

function declaredBytes({ headers }: FastifyRequest): number | undefined {
  if (headers['transfer-encoding'] !== undefined) return undefined;
  return Number(headers['content-length'] ?? 0);
}
