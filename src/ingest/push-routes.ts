import type { IncomingMessage } from 'node:http';
import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify';
import { type PushAnswer, TOO_LARGE } from './push-answer.ts';
import { createPushReceiver, type PushParts } from './receive-push.ts';

/** Those of WeChat are a few KiB. */
const MAX_PUSH_BYTES = 256 * 1024;

/** What the routes hold in their place. */
interface PushParams {
  readonly appId?: string;
  readonly componentAppId?: string;
}

/**
 * The addresses to which WeChat pushes messages.
 *
 * - `/weixin/{appId}`: messages of an app; of a platform its events
 * - `/weixin/component/{componentAppId}`: tickets and authorisations of a platform
 * - `/weixin/component/{componentAppId}/{appId}`: messages of an app that has authorised it
 *
 * A GET is the console that checks the address. Answers say nothing but what WeChat needs; why is in the log.
 */
export function pushRoutes(parts: PushParts): FastifyPluginAsync {
  return async (app) => {
    const receive = createPushReceiver(parts);

    // The bytes as they came: they are what is signed, and what goes on.
    app.removeAllContentTypeParsers();
    app.addContentTypeParser('*', { parseAs: 'buffer', bodyLimit: MAX_PUSH_BYTES }, (_request, body, done) =>
      done(null, body),
    );
    // fastify refuses one that is malformed; to us it says nothing.
    app.addHook('onRequest', async (request) => {
      delete request.headers['content-type'];
    });
    app.setErrorHandler<Error & { readonly statusCode?: number }>((error, _request, reply) => {
      const { statusCode = 500 } = error;
      if (statusCode >= 500) parts.log.error({ err: error }, 'a push has failed');
      return send(reply, statusCode === TOO_LARGE.status ? TOO_LARGE : { status: statusCode, body: 'refused\n' });
    });

    for (const url of [
      '/weixin/:appId',
      '/weixin/component/:componentAppId',
      '/weixin/component/:componentAppId/:appId',
    ])
      app.route<{ Params: PushParams; Querystring: Readonly<Record<string, unknown>> }>({
        method: ['GET', 'POST'],
        url,
        exposeHeadRoute: false,
        bodyLimit: MAX_PUSH_BYTES,
        handler: async (request, reply) => send(reply, await receive(received(request, reply))),
      });
  };
}

function received(
  request: FastifyRequest<{ Params: PushParams; Querystring: Readonly<Record<string, unknown>> }>,
  reply: FastifyReply,
): Parameters<ReturnType<typeof createPushReceiver>>[0] {
  const { raw, params, query, headers, method, body } = request;
  return {
    ...params,
    method,
    query,
    headers,
    body: Buffer.isBuffer(body) ? body : Buffer.alloc(0),
    rawQuery: (raw.url ?? '').replace(/^[^?]*\??/, ''),
    forwardedHeaders: forwardedHeaders(raw),
    spentMs: () => reply.elapsedTime,
  };
}

/** `Content-Type`, and what WeChat Cloud Run says. */
function forwardedHeaders({ rawHeaders }: IncomingMessage): Readonly<Record<string, string>> {
  const pairs = rawHeaders.flatMap((name, index): [string, string][] =>
    index % 2 === 0 ? [[name.toLowerCase(), rawHeaders[index + 1] ?? '']] : [],
  );
  return Object.fromEntries(pairs.filter(([name]) => name === 'content-type' || name.startsWith('x-wx-')));
}

function send(reply: FastifyReply, { status, headers, body }: PushAnswer): FastifyReply {
  return reply
    .code(status)
    .headers({
      'content-type': 'text/plain; charset=utf-8',
      ...headers,
      'x-content-type-options': 'nosniff',
      'cache-control': 'no-store',
    })
    .send(body);
}
