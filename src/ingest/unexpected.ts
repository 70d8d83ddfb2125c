import type { Socket } from 'node:net';
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { FAILURES, FailureError } from '../failure.ts';
import type { Logger } from '../log.ts';
import { redisTrouble } from '../redis/redis-trouble.ts';
import { setCommonHeaders } from './common-headers.ts';
import { PROBLEM_TYPE, type Problem, problemBody, sendProblem } from './problem.ts';
import type { SeldomLog } from './seldom.ts';

/** Seconds after which Redis or the bucket may be back. */
const RETRY_AFTER_SECONDS = 5;

/** What fastify says of requests, in our words: its own may repeat a part of the body. */
const BY_CODE: Readonly<Record<string, string>> = {
  FST_ERR_BAD_URL: 'the path is not encoded as it should be',
  FST_ERR_MAX_PARAM_LENGTH: 'a part of the path is too long',
  FST_ERR_CTP_EMPTY_JSON_BODY: 'the body is empty',
  FST_ERR_CTP_INVALID_JSON_BODY: 'the body is no JSON',
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: 'the body is not as long as its content-length',
};
const BY_STATUS: Readonly<Record<number, string>> = {
  400: 'the request is malformed',
  404: 'there is nothing at this path',
  408: 'the request did not arrive in time',
  413: 'the body is too large',
  414: 'the path is too long',
  415: 'a body of another content-type is expected, such as application/json',
  429: 'too many requests a second with this token',
  431: 'the headers are too many or too long',
};

/** Answers whatever a route did not answer itself. */
export function answerTheUnexpected(app: FastifyInstance, log: Logger, seldom: SeldomLog): void {
  app.setNotFoundHandler((_request, reply) => sendProblem(reply, problemOf(404)));
  app.setErrorHandler((error: unknown, request, reply) => sendProblem(reply, judge(error, request, log, seldom)));
}

/** For errors that fastify meets before it knows a route, and so before any hook. */
export function onFrameworkError(error: FastifyError, _request: FastifyRequest, reply: FastifyReply): void {
  setCommonHeaders(reply);
  void sendProblem(reply, problemOf(error.statusCode ?? 400, BY_CODE[error.code]));
}

/**
 * What a request can't have done to itself is a 503 when Redis or the bucket is to blame, since then the same request
 * may succeed later, and else a defect.
 */
function judge(error: unknown, request: FastifyRequest, log: Logger, seldom: SeldomLog): Problem {
  const { statusCode = 500, code = '' } = (error ?? {}) as Partial<FastifyError>;
  if (statusCode >= 400 && statusCode < 500) return problemOf(statusCode, BY_CODE[code]);
  const facts = { requestId: request.id, route: request.routeOptions.url };
  const outage = outageIn(error);
  if (outage === undefined) {
    log.error({ ...facts, err: error }, 'unexpected fault');
    return problemOf(500, 'this is a defect; the log of this server has it under the requestId');
  }
  seldom.warn(facts.route ?? 'none', { ...facts, reason: outage.reason }, 'a request could not be answered');
  return unavailable(outage.detail);
}

/**
 * What an error says of Redis or the bucket: `reason` for the log, `detail` for the caller. `undefined` for one that no
 * outage explains.
 */
export function outageIn(error: unknown): { readonly reason: string; readonly detail: string } | undefined {
  if (error instanceof FailureError) {
    const { code, detail } = error.failure;
    return {
      reason: detail === undefined ? code : `${code}: ${detail}`,
      detail: `${code}: ${FAILURES[code].hint}`,
    };
  }
  if (error instanceof DOMException && error.name === 'TimeoutError') {
    return { reason: error.message, detail: 'no answer from Redis or the bucket in time' };
  }
  const reason = redisTrouble(error);
  return reason === undefined ? undefined : { reason, detail: 'Redis is away or refuses' };
}

export function unavailable(detail: string): Problem {
  return { status: 503, detail, retryAfter: RETRY_AFTER_SECONDS };
}

function problemOf(status: number, detail?: string): Problem {
  return { status, detail: detail ?? BY_STATUS[status] ?? 'the request can not be answered' };
}

/** What node's parser and its timers refuse. @see https://nodejs.org/api/http.html#event-clienterror */
const CLIENT_ERRORS: Readonly<Record<string, number>> = {
  ERR_HTTP_REQUEST_TIMEOUT: 408,
  HPE_HEADER_OVERFLOW: 431,
  HPE_CHUNK_EXTENSIONS_OVERFLOW: 413,
};

/** Answers what is no HTTP, or came too slowly, and ends the connection. */
export function onClientError(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || socket.destroyed) return;
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const problem = problemOf(CLIENT_ERRORS[error.code ?? ''] ?? 400);
  const body = problemBody(problem);
  const { title } = JSON.parse(body) as { title: string };
  const head = [`HTTP/1.1 ${problem.status} ${title}`, `content-type: ${PROBLEM_TYPE}`, 'connection: close'];
  socket.write([...head, `content-length: ${Buffer.byteLength(body)}`, '', body].join('\r\n'));
  // Also its other half, which a hostile peer would leave open.
  socket.destroySoon();
}
