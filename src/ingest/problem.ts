import { STATUS_CODES } from 'node:http';
import type { FastifyReply } from 'fastify';

/** What went wrong with a request. @see https://www.rfc-editor.org/rfc/rfc9457 */
export interface Problem {
  readonly status: number;
  /** A sentence for whoever wrote the client. Never repeats what was sent, which may be secret. */
  readonly detail: string;
  /** Further members. */
  readonly more?: object;
  /** After how many seconds another try makes sense. */
  readonly retryAfter?: number;
}

export const PROBLEM_TYPE = 'application/problem+json';

export function problemBody({ status, detail, more = {} }: Problem, requestId?: string): string {
  const title = STATUS_CODES[status] ?? 'Error';
  // The status says what kind of problem it is: there is no page to read about it.
  const known = { type: 'about:blank', title, status, detail, ...(requestId === undefined ? {} : { requestId }) };
  return JSON.stringify({ ...known, ...more });
}

export function sendProblem(reply: FastifyReply, problem: Problem): FastifyReply {
  if (problem.retryAfter !== undefined) reply.header('retry-after', Math.ceil(problem.retryAfter));
  // A buffer: a text would be given a charset, which this type has not.
  return reply
    .code(problem.status)
    .header('content-type', PROBLEM_TYPE)
    .send(Buffer.from(problemBody(problem, reply.request.id)));
}
