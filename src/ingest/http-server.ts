import type { AddressInfo } from 'node:net';
import rateLimit from '@fastify/rate-limit';
import {
  type FastifyInstance,
  type FastifyPluginAsync,
  type FastifyReply,
  type FastifyRequest,
  fastify,
} from 'fastify';
import type { ApiToken } from '../api-token.ts';
import { within } from '../lifecycle.ts';
import type { Logger } from '../log.ts';
import type { IngestMetrics } from '../operate/ingest-metrics.ts';
import { MINUTE, SECOND, type Stopwatch } from '../time.ts';
import { createBodyBudget } from './body-budget.ts';
import { setCommonHeaders } from './common-headers.ts';
import { watchConnections } from './connections.ts';
import { type DeadLetterRoutesOptions, deadLetterRoutes } from './dead-letter-routes.ts';
import { createGuard } from './guard.ts';
import { type HealthRoutesOptions, healthRoutes } from './health-routes.ts';
import { type MediaRoutesOptions, mediaRoutes } from './media-routes.ts';
import { describeRoutes } from './openapi.ts';
import { refuseOtherMethods } from './other-methods.ts';
import { refuseEncodedBodies } from './plain-bodies.ts';
import { sendProblem } from './problem.ts';
import { requestIdOf } from './request-id.ts';
import { noteStart, spentMs } from './request-time.ts';
import { createSeldomLog } from './seldom.ts';
import { answerTheUnexpected, onClientError, onFrameworkError } from './unexpected.ts';

type Hooks = 'canIngest' | 'canRead' | 'canOperate';

export interface HttpServerOptions {
  readonly host: string;
  /** 0 takes any free one. */
  readonly port: number;
  readonly tokens: readonly ApiToken[];
  /** Requests a second with one token on /v1; 0 means no limit. */
  readonly rateLimit: number;
  readonly media: Omit<MediaRoutesOptions, Hooks | 'seldom' | 'observe'>;
  readonly deadLetters: Omit<DeadLetterRoutesOptions, Hooks | 'log'>;
  readonly unready: HealthRoutesOptions['unready'];
  readonly metrics: IngestMetrics;
  readonly elapsed: Stopwatch;
  readonly log: Logger;
  /** Routes of others, which look after their own callers: no token is asked of them. */
  readonly plugins?: readonly FastifyPluginAsync[];
  /** Other limits for tests. */
  readonly limits?: Partial<HttpLimits>;
}

export interface HttpServer {
  readonly port: number;
  /**
   * Takes no more connections and lets what is under way end. Cuts off after `graceMs` what has not, and requests that have
   * not come whole as soon as they are late.
   */
  close(graceMs: number): Promise<void>;
}

export interface HttpLimits {
  /** From the first byte of a request to its last. */
  readonly requestTimeoutMs: number;
  /** From the first byte of a request, or the connection, to the end of its headers. */
  readonly headersTimeoutMs: number;
  /** How often node looks for requests that are late. */
  readonly checkEveryMs: number;
  readonly maxConnections: number;
}

const LIMITS: HttpLimits = {
  requestTimeoutMs: 10 * SECOND,
  headersTimeoutMs: 5 * SECOND,
  checkEveryMs: SECOND,
  maxConnections: 20_000,
};

/** Longer than the usual proxy keeps an idle connection: it would send requests into one that we have just closed. */
const KEEP_ALIVE_MS = 75 * SECOND;
/** A connection on which nothing moves, such as of a client that does not read its answer. */
const STILL_CONNECTION_MS = 2 * MINUTE;
const CLOSE_IDLE_EVERY_MS = 100;
const BODY_LIMIT_BYTES = 2 * 1024 * 1024;
const MAX_HEADER_BYTES = 16 * 1024;
/** Node would leave out what is beyond its own limit without a word. */
const MAX_HEADERS = 64;
/** In logs and metrics, for an answer that nobody took. Nginx's number for it. */
const CALLER_GONE = 499;
/** A media_id of 256 characters, with its variant, each of them encoded. */
const MAX_PARAM_LENGTH = 1_024;

/**
 * Serves HTTP to programs that hand media in, and to operators.
 *
 * @throws when the address can't be listened on.
 */
export async function startHttpServer(options: HttpServerOptions): Promise<HttpServer> {
  const { log, metrics, elapsed } = options;
  const limits = { ...LIMITS, ...options.limits };
  const app = fastify({
    logger: false,
    genReqId: requestIdOf,
    requestIdHeader: false,
    bodyLimit: BODY_LIMIT_BYTES,
    // Our schemas refuse such names, each item by itself; fastify would refuse the whole body as no JSON.
    onProtoPoisoning: 'ignore',
    onConstructorPoisoning: 'ignore',
    requestTimeout: limits.requestTimeoutMs,
    connectionTimeout: STILL_CONNECTION_MS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    http: {
      headersTimeout: limits.headersTimeoutMs,
      connectionsCheckingInterval: limits.checkEveryMs,
      maxHeaderSize: MAX_HEADER_BYTES,
      // We say so ourselves, and as a problem.
      requireHostHeader: false,
    },
    routerOptions: { maxParamLength: MAX_PARAM_LENGTH },
    // What comes on a connection that still stands is answered; then it is closed.
    return503OnClosing: false,
    frameworkErrors: onFrameworkError,
    clientErrorHandler: onClientError,
  });
  const seldom = createSeldomLog(log, elapsed);
  let closing = false;
  app.server.maxConnections = limits.maxConnections;
  const connections = watchConnections(app.server);
  // Node would answer 417 without a word. One may leave out of account what is expected, and answer as ever.
  app.server.on('checkExpectation', (request, response) => app.server.emit('request', request, response));

  answerTheUnexpected(app, log, seldom);
  app.addHook('onRequest', async (request, reply) => {
    noteStart(request);
    setCommonHeaders(reply);
    // fastify's onResponse is not called when the caller has gone.
    reply.raw.once('close', () => observe(request, reply));
    if (request.raw.httpVersion === '1.1' && request.headers.host === undefined) {
      return sendProblem(reply, { status: 400, detail: 'a Host header is expected' });
    }
    if (request.raw.rawHeaders.length <= 2 * MAX_HEADERS) return undefined;
    return sendProblem(reply, { status: 431, detail: `at most ${MAX_HEADERS} headers are taken` });
  });
  // Else those that ask again and again, or wait idle, would hold up the end.
  app.addHook('onSend', async (_request, reply) => {
    if (closing) reply.header('connection', 'close');
  });
  const refuseTheRest = refuseOtherMethods(app);
  await app.register((scope) => ownRoutes(scope, options));
  for (const plugin of options.plugins ?? []) await app.register(plugin);
  refuseTheRest();

  await app.listen({ host: options.host, port: options.port });
  return {
    port: (app.server.address() as AddressInfo).port,
    close: async (graceMs) => {
      closing = true;
      const closed = app.close();
      // Node closes those that are idle just now; one that was refused in the middle of its body is so a little later.
      const idle = setInterval(() => app.server.closeIdleConnections(), CLOSE_IDLE_EVERY_MS);
      const late = setTimeout(() => connections.cutIdle(), limits.requestTimeoutMs);
      if (!(await within(graceMs, closed))) app.server.closeAllConnections();
      await closed;
      clearInterval(idle);
      clearTimeout(late);
    },
  };

  function observe(request: FastifyRequest, reply: FastifyReply): void {
    const route = request.routeOptions.url ?? 'none';
    const status = reply.raw.writableFinished ? reply.statusCode : CALLER_GONE;
    const durationMs = spentMs(request);
    metrics.observeRequest({ route, status, durationMs });
    // Never the path itself, nor what stands behind it.
    const facts = { requestId: request.id, method: request.method, route, status, durationMs: Math.round(durationMs) };
    if (status >= 500) seldom.warn(`${route} ${status}`, facts, 'request');
    log.debug(facts, 'request');
  }

  async function ownRoutes(own: FastifyInstance, given: HttpServerOptions): Promise<void> {
    const guard = createGuard(given.tokens, elapsed, seldom);
    const [canIngest, canRead, canOperate] = [guard.needs('ingest'), guard.needs('read'), guard.needs('operate')];
    own.addHook('onRequest', guard.refuseForeignNames);
    // A web page may send that anywhere without asking first.
    own.removeContentTypeParser('text/plain');
    await describeRoutes(own);
    healthRoutes(own, { unready: given.unready, metrics, canRead });
    await own.register(
      async (v1) => {
        if (given.rateLimit > 0) {
          await v1.register(rateLimit, {
            max: given.rateLimit,
            timeWindow: SECOND,
            keyGenerator: guard.callerOf,
            addHeaders: { 'x-ratelimit-limit': false, 'x-ratelimit-remaining': false, 'x-ratelimit-reset': false },
            addHeadersOnExceeding: {
              'x-ratelimit-limit': false,
              'x-ratelimit-remaining': false,
              'x-ratelimit-reset': false,
            },
          });
        }
        // Behind the guard and the limit: what they refuse takes no memory.
        v1.addHook('preParsing', refuseEncodedBodies);
        v1.addHook('preParsing', createBodyBudget(BODY_LIMIT_BYTES));
        mediaRoutes(v1, {
          ...given.media,
          seldom,
          observe: (admission) => metrics.observeAdmission(admission),
          canIngest,
          canRead,
        });
        deadLetterRoutes(v1, { ...given.deadLetters, log, canRead, canOperate });
      },
      { prefix: '/v1' },
    );
  }
}
