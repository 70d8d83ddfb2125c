import type { ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import type { FaultAction } from './fault.ts';
import { SAMPLE_FORMATS } from './sample-media.ts';
import type { SimulatedMedia } from './simulated-media.ts';
import { weixinError } from './weixin-error.ts';

export interface AnswerContext {
  readonly response: ServerResponse;
  /** Media come with a Content-disposition, videos from their own host without. */
  readonly disposition: boolean;
  /** How many requests this connection has brought, this one included. */
  readonly requestsOfSocket: number;
  readonly refuse: (errcode: number, errmsg?: string, asString?: boolean) => void;
}

/**
 * Sends a media with WeChat's headers, spelled as WeChat does.
 *
 * @see https://developers.weixin.qq.com/doc/service/Asset_Management/Get_temporary_materials.html
 */
export async function sendMedia(media: SimulatedMedia, { response, disposition }: AnswerContext): Promise<void> {
  response.writeHead(200, headersOf(media, disposition));
  await sendChunks(response, media.bytes.chunks());
  response.end();
}

/** Does what a fault asks for. */
export async function sendFault(
  action: FaultAction,
  media: SimulatedMedia | undefined,
  context: AnswerContext,
): Promise<void> {
  const { response, refuse } = context;
  const { socket } = response;
  switch (action.type) {
    case 'errcode':
      return refuse(action.errcode, action.errmsg, action.asString);
    case 'reset':
    case 'lost-answer':
      socket?.resetAndDestroy();
      return;
    case 'stale-socket':
      if (context.requestsOfSocket > 1) socket?.resetAndDestroy();
      else if (media !== undefined) await sendMedia(media, context);
      return;
    case 'html':
      response.writeHead(action.status, { 'Content-Type': 'text/html' });
      response.end('<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>');
      return;
    case 'text':
      response.writeHead(200, {
        'Content-Type': action.contentType ?? 'text/plain',
        'Content-Length': Buffer.byteLength(action.body),
      });
      response.end(action.body);
      return;
    case 'redirect':
      response.writeHead(302, { Location: action.location, 'Content-Length': 0 }).end();
      return;
    case 'hang':
      if (action.where === 'headers' || media === undefined) return;
      response.writeHead(200, headersOf(media, context.disposition));
      response.flushHeaders();
      return;
    case 'json-in-disguise': {
      const body = weixinError(action.errcode, undefined, Date.now());
      const name = media?.fileName ?? 'image.jpg';
      response.writeHead(200, {
        'Content-Type': 'image/jpeg',
        'Content-disposition': `attachment; filename="${name}"`,
        'Content-Length': Buffer.byteLength(body),
      });
      response.end(body);
      return;
    }
    default:
      if (media === undefined) return refuse(40007);
      return sendSpoiled(action, media, context);
  }
}

type Spoiling = Extract<FaultAction, { type: 'truncate' | 'drip' | 'empty' | 'wrong-type' | 'no-length' | 'gzip' }>;

/** Sends a media, but not as it should be. */
async function sendSpoiled(action: Spoiling, media: SimulatedMedia, context: AnswerContext): Promise<void> {
  const { response } = context;
  const headers = headersOf(media, context.disposition);
  switch (action.type) {
    case 'truncate': {
      response.writeHead(200, headers);
      let left = action.afterBytes ?? Math.floor(media.bytes.sizeBytes / 2);
      for (const chunk of media.bytes.chunks()) {
        await sendChunks(response, [chunk.subarray(0, left)]);
        left -= chunk.byteLength;
        if (left <= 0) break;
      }
      // Only once the part is out: a reset would take it back.
      response.socket?.destroySoon();
      return;
    }
    case 'drip':
      response.writeHead(200, headers);
      response.flushHeaders();
      for (const chunk of media.bytes.chunks()) {
        for (let at = 0; at < chunk.byteLength; at += action.chunkBytes) {
          await sleep(action.everyMs);
          if (response.destroyed) return;
          response.write(chunk.subarray(at, at + action.chunkBytes));
        }
      }
      // At once: whoever has all bytes may send the next request, which is not served before this answer has ended.
      response.end();
      return;
    case 'empty':
      response.writeHead(200, { ...headers, 'Content-Length': 0 }).end();
      return;
    case 'wrong-type': {
      const { 'Content-disposition': named, ...rest } = headers;
      response.writeHead(200, {
        ...rest,
        'Content-Type': action.contentType,
        ...(action.disposition ? { 'Content-disposition': named } : {}),
      });
      await sendChunks(response, media.bytes.chunks());
      response.end();
      return;
    }
    case 'no-length': {
      const { 'Content-Length': _unsaid, ...rest } = headers;
      if (action.framing === 'close') {
        // HTTP/1.1 without length and without chunks ends where the connection ends.
        response.useChunkedEncodingByDefault = false;
        response.shouldKeepAlive = false;
      }
      response.writeHead(200, rest);
      await sendChunks(response, media.bytes.chunks());
      response.end();
      return;
    }
    case 'gzip': {
      const body = gzipSync(Buffer.concat([...media.bytes.chunks()]));
      response.writeHead(200, { ...headers, 'Content-Encoding': 'gzip', 'Content-Length': body.byteLength });
      response.end(body);
      return;
    }
    default:
      action satisfies never;
  }
}

function headersOf(media: SimulatedMedia, disposition: boolean): Record<string, string | number> {
  return {
    'Content-Type': SAMPLE_FORMATS[media.format].contentType,
    ...(disposition ? { 'Content-disposition': `attachment; filename="${media.fileName}"` } : {}),
    'Cache-Control': 'no-cache, must-revalidate',
    'Content-Length': media.bytes.sizeBytes,
  };
}

/** Writes as fast as the peer reads. Stops when it has gone. */
async function sendChunks(response: ServerResponse, chunks: Iterable<Buffer>): Promise<void> {
  for (const chunk of chunks) {
    if (response.destroyed) return;
    if (response.write(chunk)) continue;
    const { promise, resolve } = Promise.withResolvers<void>();
    response.once('drain', resolve);
    response.once('close', resolve);
    await promise;
    response.off('drain', resolve);
    response.off('close', resolve);
  }
}
