import type { FastifyRequest } from 'fastify';
import { elapsed } from '../time.ts';

/** fastify keeps the time of a request only where it has a logger or a hook of its own for it. */
const startedAt = new WeakMap<FastifyRequest, number>();

/** Takes note that the head of a request has come. The first note counts. */
export function noteStart(request: FastifyRequest): void {
  if (!startedAt.has(request)) startedAt.set(request, elapsed());
}

/** How long ago that was, in milliseconds. */
export function spentMs(request: FastifyRequest): number {
  return elapsed() - (startedAt.get(request) ?? elapsed());
}
