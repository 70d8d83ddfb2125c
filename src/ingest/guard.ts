import { createHash, timingSafeEqual } from 'node:crypto';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { ApiToken, Scope } from '../api-token.ts';
import { isLoopback } from '../loopback.ts';
import type { Stopwatch } from '../time.ts';
import { createFailedAttempts } from './failed-attempts.ts';
import { sendProblem } from './problem.ts';
import type { SeldomLog } from './seldom.ts';

export type RequestHook = (request: FastifyRequest, reply: FastifyReply) => Promise<FastifyReply | undefined>;

/** Who may ask for what. */
export interface Guard {
  /** Refuses requests that a web page may have sent to this machine, where no token could tell them from others. */
  readonly refuseForeignNames: RequestHook;
  /** Lets requests pass whose token has this scope. 401 without a right token, 403 without the scope. */
  needs(scope: Scope): RequestHook;
  /** Names the token of a request that `needs` has let pass; it is not the token. */
  callerOf(request: FastifyRequest): string;
}

interface Holder {
  readonly name: string;
  readonly digest: Buffer;
  readonly scopes: readonly Scope[];
}

/** @param tokens none: everything is allowed, but only under a name of this machine. */
export function createGuard(tokens: readonly ApiToken[], elapsed: Stopwatch, seldom: SeldomLog): Guard {
  const holders = tokens.map(
    ({ token, scopes }, index): Holder => ({ name: `token-${index}`, digest: digestOf(token.reveal()), scopes }),
  );
  const failed = createFailedAttempts(elapsed);
  const callers = new WeakMap<FastifyRequest, string>();

  /** Takes as long whichever token it is, and if it is none. */
  function holderOf(header: string | undefined): Holder | undefined {
    const [, token = ''] = /^Bearer +(\S+) *$/i.exec(header ?? '') ?? [];
    const digest = digestOf(token);
    return holders.filter((holder) => timingSafeEqual(holder.digest, digest))[0];
  }

  return {
    // A page can give a name of its own the address of this machine, and then ask as if it were its own server.
    refuseForeignNames: async (request, reply) =>
      holders.length > 0 || isLoopback(nameIn(request.headers.host))
        ? undefined
        : sendProblem(reply, { status: 403, detail: 'without API_TOKENS only localhost and 127.0.0.1 are answered' }),

    needs: (scope) => async (request, reply) => {
      if (holders.length === 0) return undefined;
      const holder = holderOf(request.headers.authorization);
      if (holder === undefined) {
        const retryAfter = failed.note(request.ip);
        const facts = { requestId: request.id, address: request.ip, route: request.routeOptions.url };
        seldom.warn(facts.route ?? 'none', facts, 'a request without a right token');
        reply.header('www-authenticate', 'Bearer');
        return sendProblem(
          reply,
          retryAfter === undefined
            ? { status: 401, detail: 'a token of API_TOKENS is expected as Authorization: Bearer TOKEN' }
            : { status: 429, detail: 'too many wrong tokens from this address', retryAfter },
        );
      }
      callers.set(request, holder.name);
      if (holder.scopes.includes(scope)) return undefined;
      return sendProblem(reply, { status: 403, detail: `this token has not the scope ${scope}` });
    },

    callerOf: (request) => callers.get(request) ?? 'anybody',
  };
}

function digestOf(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}

/** The name in a Host header, without its port. */
function nameIn(host = ''): string {
  return host.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
}
