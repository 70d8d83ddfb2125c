import type { LookupFunction } from 'node:net';
import { Agent, buildConnector, type Dispatcher } from 'undici';
import { type Failure, failure } from '../failure.ts';
import { MINUTE } from '../time.ts';

export interface WeixinTimeouts {
  /** Until a connection stands. */
  readonly connectMs: number;
  /** From the request to the response headers. */
  readonly responseMs: number;
  /** Without a byte of the body, while we read. */
  readonly idleMs: number;
  /** For one download, whatever else happens: undici's own timers rest while we are the slow side. */
  readonly totalMs: number;
}

/** The connections to the WeChat API. */
export interface HttpPool {
  /** Keeps sockets alive. */
  readonly pooled: Dispatcher;
  /** A new socket for each request: an idle socket that the server has closed fails at its next use, and so may all its siblings. */
  readonly fresh: Dispatcher;
  close(): Promise<void>;
}

const KEEP_ALIVE_MAX_MS = MINUTE;

/** @param connections at least the number of downloads at once. */
export function createHttpPool(timeouts: WeixinTimeouts, connections: number): HttpPool {
  const common = agentOptions(timeouts);
  const pooled = new Agent({ ...common, connections, keepAliveMaxTimeout: KEEP_ALIVE_MAX_MS });
  const fresh = new Agent({ ...common, pipelining: 0 });
  return {
    pooled,
    fresh,
    close: async () => {
      await Promise.all([pooled.destroy(), fresh.destroy()]);
    },
  };
}

/** HTTP/1.1 only, as WeChat is known to speak it. */
export function agentOptions(timeouts: WeixinTimeouts): Agent.Options {
  return {
    allowH2: false,
    connect: createConnector(timeouts),
    headersTimeout: timeouts.responseMs,
    bodyTimeout: timeouts.idleMs,
  };
}

/**
 * Makes an undici connector whose sockets tell a reset by another name.
 *
 * undici takes ECONNRESET for the end of a body that only the end of its connection ends, and a media that was cut by it
 * for whole.
 */
export function createConnector(timeouts: WeixinTimeouts, lookup?: LookupFunction): buildConnector.connector {
  const connect = buildConnector({
    timeout: timeouts.connectMs,
    allowH2: false,
    ...(lookup === undefined ? {} : { lookup }),
  });
  return (options, callback) => {
    connect(options, (...[error, socket]) => {
      if (error !== null) {
        callback(error, null);
        return;
      }
      socket.prependListener('error', (fault: NodeJS.ErrnoException) => {
        if (fault.code === 'ECONNRESET') fault.code = 'ECONNABORTED';
      });
      callback(null, socket);
    });
  };
}

/** Where in a request an error came up. */
export type HttpPhase = 'request' | 'body';

const TIMEOUTS = new Set(['UND_ERR_HEADERS_TIMEOUT', 'UND_ERR_BODY_TIMEOUT', 'TimeoutError', 'ETIMEDOUT']);

/** What undici says of an answer that is not HTTP, besides the codes of its parser; not every fault has one of those. */
const NOT_HTTP = new Set(['HTTPParserError', 'UND_ERR_HEADERS_OVERFLOW']);

/** Two lengths, or a length beside chunks: whoever answered, no body can be told from what follows it. */
const AMBIGUOUS_LENGTH = 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH';

/**
 * Returns what an error of undici or of a socket means.
 *
 * Never repeats a message: it may quote an address with a token in it.
 */
export function classifyHttpError(error: unknown, phase: HttpPhase): Failure {
  const name = errorName(error);
  if (TIMEOUTS.has(name)) return failure('weixin-timeout', { detail: name });
  if (name.startsWith('HPE_') || NOT_HTTP.has(name)) return failure('weixin-bad-gateway', { detail: name });
  // A connection that ends within the body ends it short.
  if (phase === 'body') return failure('body-truncated', { detail: name });
  return failure(name === AMBIGUOUS_LENGTH ? 'weixin-bad-gateway' : 'weixin-unreachable', { detail: name });
}

const NO_CONNECTION = new Set([
  'UND_ERR_CONNECT_TIMEOUT',
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
]);

/** True when no connection stood, so that nothing has been asked: the host is away, and asking again repeats nothing. */
export function isNoConnection({ code, detail = '' }: Failure): boolean {
  return code === 'weixin-unreachable' && NO_CONNECTION.has(detail);
}

/** The code of an error or of its cause, else its name. */
function errorName(error: unknown): string {
  if (!(error instanceof Error)) return typeof error;
  if ('code' in error && typeof error.code === 'string') return error.code;
  if (error.name === 'TimeoutError') return error.name;
  return error.cause instanceof Error ? errorName(error.cause) : error.name;
}
