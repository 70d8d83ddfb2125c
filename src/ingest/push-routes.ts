import type { IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify';
import { createBodyBudget } from './body-budget.ts';
import { type PushAnswer, TOO_LARGE } from './push-answer.ts';
import { createPushReceiver, type PushParts, type ReceivedPush } from './receive-push.ts';
import { noteStart, spentMs } from './request-time.ts';

/** Those of WeChat are a few KiB. */
const MAX_PUSH_BYTES = 256 * 1024;

/** Such a body is read without asking for room. */
const SMALL_PUSH_BYTES = 16 * 1024;

/** What the routes hold in their place. */
interface PushParams {
  readonly appId?: string;
  readonly componentAppId?: string;
}

interface PushRouteTypes {
  readonly Params: PushParams;
  readonly Querystring: Readonly<Record<string, unknown>>;
}

type PushHttpRequest = FastifyRequest<PushRouteTypes>;

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
    const receiver = createPushReceiver(parts);

    // The bytes as they came: they are what is signed, and what goes on.
    app.removeAllContentTypeParsers();
    app.addContentTypeParser('*', { parseAs: 'buffer', bodyLimit: MAX_PUSH_BYTES }, (_request, body, done) =>
      done(null, body),
    );
    // fastify refuses one that is malformed; to us it says nothing.
    app.addHook('onRequest', async (request, reply) => {
      noteStart(request);
      delete request.headers['content-type'];
      // Of what is refused for its head no body is read: anybody may send one.
      const refused = receiver.refuseHead(received(request as PushHttpRequest));
      return refused === undefined ? undefined : send(reply, refused);
    });
    const budget = createBodyBudget(MAX_PUSH_BYTES);
    app.addHook('preParsing', async (request, reply, payload) => {
      const lengthBytes = Number(request.headers['content-length'] ?? Number.POSITIVE_INFINITY);
      // WeChat's own are never kept out by larger ones that strangers send.
      return lengthBytes <= SMALL_PUSH_BYTES ? undefined : budget(request, reply, payload as Readable);
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
      app.route<PushRouteTypes>({
        method: ['GET', 'POST'],
        url,
        exposeHeadRoute: false,
        bodyLimit: MAX_PUSH_BYTES,
        handler: async (request, reply) => send(reply, await receiver.receive(received(request))),
      });
  };
}

function received(request: PushHttpRequest): ReceivedPush {
  const { raw, params, query, headers, method, body } = request;
  return {
    ...params,
    method,
    query,
    headers,
    body: Buffer.isBuffer(body) ? body : Buffer.alloc(0),
    rawQuery: (raw.url ?? '').replace(/^[^?]*\??/, ''),
    forwardedHeaders: forwardedHeaders(raw),
    spentMs: () => spentMs(request),
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
