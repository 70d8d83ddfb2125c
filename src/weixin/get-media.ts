import type { Dispatcher } from 'undici';
import { timeLimit } from '../abort.ts';
import { type Failure, type FailureCode, FailureError, type Result } from '../failure.ts';
import type { MediaJob } from '../media/media-job.ts';
import { Secret } from '../secret.ts';
import { openRequest, type Response } from './byte-source.ts';
import { ofCloudCall } from './cloud-failure.ts';
import { type ApiAccess, addressOf } from './credentials/api-access.ts';
import { decodeBody } from './decoded-body.ts';
import { classifyHttpError, type WeixinTimeouts } from './http.ts';
import { checkLength, type MediaBody, peekBody } from './media-body.ts';
import { bytesToClassify, classifyReply } from './reply.ts';

/** Media, or the address where a video lies. */
export type Got =
  | { readonly type: 'media'; readonly body: MediaBody }
  | { readonly type: 'video-url'; readonly url: string };

/** What says something of the app when media/get answers it, and of one path alone when the path of HD voice does. */
const OF_THE_PATH: ReadonlySet<FailureCode> = new Set<FailureCode>([
  'api-unauthorized',
  'cloud-call-misconfigured',
  'quota-exhausted',
]);

const NO_SECRET = new Secret('');

export interface GetMediaRequest {
  readonly baseUrl: URL;
  readonly access: ApiAccess;
  readonly job: Pick<MediaJob, 'mediaId' | 'variant' | 'kind'>;
  readonly dispatcher: Dispatcher;
  readonly timeouts: WeixinTimeouts;
  readonly maxBytes: number;
}

/**
 * Calls media/get once. Follows no redirect, asks for no Range and no compression.
 *
 * @throws the signal's reason when it aborts.
 * @see https://developers.weixin.qq.com/doc/service/api/material/temporary/api_getmedia
 * @see https://developers.weixin.qq.com/doc/service/api/material/temporary/api_gethdvoice
 */
export async function getMedia(request: GetMediaRequest, signal: AbortSignal): Promise<Result<Got>> {
  const { baseUrl, access, job, dispatcher, timeouts, maxBytes } = request;
  const limit = timeLimit(signal, timeouts.totalMs);
  const path = job.variant === 'hd-voice' ? '/cgi-bin/media/get/jssdk' : '/cgi-bin/media/get';

  let response: Response;
  try {
    const options = {
      ...addressOf(access, baseUrl, path, { media_id: job.mediaId }),
      method: 'GET',
      headers: { accept: '*/*', 'accept-encoding': 'identity' },
    };
    response = await openRequest(dispatcher, options, limit.signal);
  } catch (error) {
    limit.end();
    if (signal.aborted) throw signal.reason;
    return { ok: false, failure: classifyHttpError(limit.expired ? limit.signal.reason : error, 'request') };
  }

  const decoded = decodeBody(response);
  if (!decoded.ok) {
    limit.end();
    return decoded;
  }
  const { body, contentLength, isEndUnproven } = decoded.value;
  try {
    const peeked = await peekBody(body, bytesToClassify, limit);
    const { head, complete } = peeked;
    const reply = await classifyReply(
      { status: response.statusCode, headers: response.headers, head, complete },
      access.token?.value ?? NO_SECRET,
      job.kind,
      access.source,
    );
    if (reply.type === 'media') {
      const { type: _type, ...facts } = reply;
      const length = contentLength === undefined ? {} : { contentLength };
      const chunks = checkLength(peeked.chunks, contentLength, maxBytes);
      return {
        ok: true,
        value: { type: 'media', body: { ...facts, ...length, isEndUnproven, chunks, discard: peeked.discard } },
      };
    }
    // What may be left of the answer is not worth a socket; one that has been read to its end keeps its own.
    peeked.discard();
    return reply.type === 'failure'
      ? { ok: false, failure: ofVariant(job, ofCloudCall(reply.failure, access, response.headers)) }
      : { ok: true, value: reply };
  } catch (error) {
    if (error instanceof FailureError) return { ok: false, failure: error.failure };
    throw error;
  }
}

/** HD voice that is refused to an app must not hold up all its other media. */
function ofVariant({ variant }: Pick<MediaJob, 'variant'>, cause: Failure): Failure {
  return variant === 'hd-voice' && OF_THE_PATH.has(cause.code) ? { ...cause, code: 'hd-voice-refused' } : cause;
}
