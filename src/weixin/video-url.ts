import { Agent, type Dispatcher } from 'undici';
import { type TimeLimit, timeLimit } from '../abort.ts';
import { FailureError, fail, type Result } from '../failure.ts';
import { extensionOfDisposition, mimeOf } from '../media/media-type.ts';
import { looksLikeMarkup, sniffType } from '../media/sniff.ts';
import { sourceOf } from './byte-source.ts';
import { decodeBody, textOf } from './decoded-body.ts';
import { agentOptions, classifyHttpError, type WeixinTimeouts } from './http.ts';
import { checkLength, type MediaBody, peekBody } from './media-body.ts';
import { AddressRefusedError, type Lookup, publicConnector } from './public-address.ts';
import { bytesToClassify } from './reply.ts';

const MAX_REDIRECTS = 3;

export interface VideoDownloader {
  /**
   * Downloads from an address that WeChat named. It is plain http with an IP address as host, so no list of names can
   * tell good from bad: only http(s), only public addresses, few redirects, and no token in the request.
   *
   * @throws the signal's reason when it aborts.
   */
  download(url: string, signal: AbortSignal): Promise<Result<MediaBody>>;
  close(): Promise<void>;
}

export interface VideoDownloaderOptions {
  readonly timeouts: WeixinTimeouts;
  readonly maxBytes: number;
  /** Hosts that need not be public: `host` or `host:port`, lower case. */
  readonly allowHosts: readonly string[];
  /** How names of hosts that must be public are looked up. Default: as the system does. */
  readonly lookup?: Lookup;
}

export function createVideoDownloader({
  timeouts,
  maxBytes,
  allowHosts,
  lookup,
}: VideoDownloaderOptions): VideoDownloader {
  // Every video comes from another host: no socket is worth keeping.
  const common = { ...agentOptions(timeouts), pipelining: 0 };
  const guarded = new Agent({ ...common, connect: publicConnector(timeouts, lookup) });
  const trusting = new Agent(common);

  async function download(text: string, signal: AbortSignal): Promise<Result<MediaBody>> {
    const limit = timeLimit(signal, timeouts.totalMs);
    let url = parseHttpUrl(text);
    for (let hop = 0; url !== undefined && hop <= MAX_REDIRECTS; hop += 1) {
      const allowed = allowHosts.includes(url.hostname) || allowHosts.includes(url.host);
      let response: Dispatcher.ResponseData;
      try {
        response = await (allowed ? trusting : guarded).request({
          origin: url.origin,
          path: `${url.pathname}${url.search}`,
          method: 'GET',
          headers: { accept: '*/*', 'accept-encoding': 'identity' },
          signal: limit.signal,
        });
      } catch (error) {
        limit.end();
        if (signal.aborted) throw signal.reason;
        return { ok: false, failure: videoFailure(limit.expired ? limit.signal.reason : error) };
      }
      const location = redirectOf(response);
      if (location === undefined) return openVideo(response, limit);
      await response.body.dump({ limit: 64 * 1024 }).catch(() => undefined);
      url = URL.canParse(location, url.href) ? parseHttpUrl(new URL(location, url).href) : undefined;
    }
    limit.end();
    return url === undefined
      ? fail('video-url-refused', { detail: 'not an http(s) address' })
      : fail('video-url-failed', { detail: `more than ${MAX_REDIRECTS} redirects` });
  }

  async function openVideo(response: Dispatcher.ResponseData, limit: TimeLimit): Promise<Result<MediaBody>> {
    if (response.statusCode !== 200) {
      limit.end();
      response.body.on('error', () => undefined).destroy();
      return fail('video-url-failed', { httpStatus: response.statusCode });
    }
    const decoded = decodeBody({ headers: response.headers, body: sourceOf(response.body) });
    if (!decoded.ok) {
      limit.end();
      return fail('video-url-failed', { detail: decoded.failure.detail });
    }
    const { body, contentLength, isEndUnproven } = decoded.value;
    try {
      const peeked = await peekBody(body, bytesToClassify, limit);
      const declaredType = mimeOf(textOf(response.headers['content-type']));
      const sniffed = await sniffType(peeked.head);
      // Every video has a magic, by which pages, texts and errors are told from it.
      if (sniffed === undefined || looksLikeMarkup(peeked.head)) {
        peeked.discard();
        return fail(peeked.head.byteLength === 0 ? 'body-empty' : 'body-not-media', { httpStatus: 200 });
      }
      const namedExtension = extensionOfDisposition(textOf(response.headers['content-disposition']));
      return {
        ok: true,
        value: {
          ...(declaredType === undefined ? {} : { declaredType }),
          sniffed,
          ...(namedExtension === undefined ? {} : { namedExtension }),
          ...(contentLength === undefined ? {} : { contentLength }),
          isEndUnproven,
          chunks: checkLength(peeked.chunks, contentLength, maxBytes),
          discard: peeked.discard,
        },
      };
    } catch (error) {
      if (error instanceof FailureError) return { ok: false, failure: error.failure };
      throw error;
    }
  }

  return {
    download,
    close: async () => {
      await Promise.all([guarded.destroy(), trusting.destroy()]);
    },
  };
}

function parseHttpUrl(text: string): URL | undefined {
  if (!URL.canParse(text)) return undefined;
  const url = new URL(text);
  const plain = url.username === '' && url.password === '';
  return plain && (url.protocol === 'http:' || url.protocol === 'https:') ? url : undefined;
}

function redirectOf(response: Dispatcher.ResponseData): string | undefined {
  return [301, 302, 303, 307, 308].includes(response.statusCode) ? textOf(response.headers['location']) : undefined;
}

function videoFailure(error: unknown): ReturnType<typeof classifyHttpError> {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof AddressRefusedError) return { code: 'video-url-refused', detail: cause.message };
  }
  const reason = classifyHttpError(error, 'request');
  return reason.code === 'weixin-unreachable' ? { ...reason, code: 'video-url-failed' } : reason;
}
