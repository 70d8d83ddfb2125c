import type { IncomingMessage, ServerResponse } from 'node:http';
import { readText, sendText, startLoopbackServer } from './loopback-server.ts';

/**
 * What a token service does in place of its work.
 *
 * - `stale`: gives out the token that it has, whatever has become of it, until it is told.
 * - `deaf`: the same, also when it is told.
 * - `silent`: takes questions and never answers.
 */
export type TokenServiceFault =
  | 'stale'
  | 'deaf'
  | 'silent'
  | { readonly status: number }
  | { readonly body: string }
  | { readonly redirect: string };

/** A token service as operators run them: asks WeChat, and gives its token to whoever has the password. */
export interface SimulatedTokenService {
  readonly url: string;
  /** To be told that WeChat rejects the token. */
  readonly invalidateUrl: string;
  readonly counts: { asked: number; told: number; refused: number };
  fault: TokenServiceFault | undefined;
  /** Life to tell beside the token, in seconds. Default: none. */
  expiresIn: number | undefined;
  close(): Promise<void>;
}

export interface TokenServiceOptions {
  /** In the `Authorization` header of whoever asks. */
  readonly password: string;
  /** Asks WeChat. */
  readonly fetchToken: () => Promise<string>;
}

/** The token stands at `data.access_token`. */
export async function startTokenService({ password, fetchToken }: TokenServiceOptions): Promise<SimulatedTokenService> {
  let kept: string | undefined;

  async function route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    await readText(request);
    const { fault, counts } = service;
    if (request.headers.authorization !== password) {
      counts.refused += 1;
      return sendText(response, 'text/plain', `no: ${request.headers.authorization ?? ''}`, 401);
    }
    if (request.url === '/invalidate') {
      counts.told += 1;
      if (typeof fault === 'object' && 'status' in fault) return sendText(response, 'text/plain', 'no', fault.status);
      if (fault !== 'deaf') kept = undefined;
      if (fault === 'stale') service.fault = undefined;
      return sendText(response, 'text/plain', 'thanks');
    }
    counts.asked += 1;
    if (fault === 'silent') return;
    if (typeof fault === 'object') return answerWrongly(fault, response);
    if (kept === undefined || fault === undefined) kept = await fetchToken();
    const life = service.expiresIn === undefined ? {} : { expires_in: service.expiresIn };
    sendText(response, 'application/json', JSON.stringify({ code: 0, data: { access_token: kept, ...life } }));
  }

  const { url, close } = await startLoopbackServer((request, response) => {
    route(request, response).catch(() => response.destroy());
  }, 0);
  const service: SimulatedTokenService = {
    url: `${url}/token`,
    invalidateUrl: `${url}/invalidate`,
    counts: { asked: 0, told: 0, refused: 0 },
    fault: undefined,
    expiresIn: undefined,
    close,
  };
  return service;
}

function answerWrongly(fault: Extract<TokenServiceFault, object>, response: ServerResponse): void {
  if ('redirect' in fault) response.writeHead(302, { Location: fault.redirect, 'Content-Length': 0 }).end();
  else if ('status' in fault) sendText(response, 'text/plain', 'the service is not well', fault.status);
  else sendText(response, 'application/json', fault.body);
}
