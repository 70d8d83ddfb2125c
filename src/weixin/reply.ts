import { type Failure, failure } from '../failure.ts';
import type { MediaKind } from '../media/kind.ts';
import { extensionOfDisposition, isMediaType, isTextType, mimeOf } from '../media/media-type.ts';
import { looksLikeMarkup, looksLikeText, SNIFF_BYTES, type SniffedType, sniffType } from '../media/sniff.ts';
import { type Secret, withoutSecret } from '../secret.ts';
import { textOf } from './decoded-body.ts';
import type { ErrorSource } from './error-codes.ts';
import { errcodeOf, failureOfReply, MAX_JSON_BYTES, parseWeixinJson, readable, startsLikeJson } from './error-reply.ts';

/** What WeChat's HTTP answer turned out to be. The status says nothing: errors come as 200. */
export type Reply =
  | {
      readonly type: 'media';
      readonly declaredType?: string;
      readonly sniffed?: SniffedType;
      readonly namedExtension?: string;
    }
  | { readonly type: 'video-url'; readonly url: string }
  | { readonly type: 'failure'; readonly failure: Failure };

/** An HTTP answer: status, headers by lower-case name, and the first bytes of its body. */
export interface HttpAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly head: Buffer;
  /** True when `head` is the whole body. */
  readonly complete: boolean;
}

/** How many first bytes `classifyReply` needs: enough to sniff, and all of what may be JSON. */
export function bytesToClassify(head: Buffer): number {
  return startsLikeJson(head.toString('utf8', 0, 64)) ? MAX_JSON_BYTES + 1 : SNIFF_BYTES;
}

/**
 * Tells media from errors, by the content type, the `Content-disposition` and the first bytes together: each of them
 * alone lies now and then. Errors come as `text/plain`; images come under wrong types; a gateway's page comes as 200;
 * an image may be named like JSON or begin with a brace.
 *
 * Bytes of a known type are media. Bytes of none are so where a format has no magic, as voice in speex; an image or a
 * video without one only if it comes as an attachment too, as all that users send does: it would be lost for ever, and may
 * be of a format that is not known yet. Words are none, whatever they are declared as.
 *
 * @param sent the token of the request, blotted out of every text that is kept.
 * @param kind what the producer says it is. A `file` may be a text.
 * @param source whose words an errcode is taken for.
 * @see https://developers.weixin.qq.com/doc/service/api/material/temporary/api_getmedia
 */
export async function classifyReply(
  answer: HttpAnswer,
  sent: Secret,
  kind?: MediaKind,
  source: ErrorSource = 'media',
): Promise<Reply> {
  const declaredType = mimeOf(textOf(answer.headers['content-type']));
  const disposition = textOf(answer.headers['content-disposition']);
  const { head, status } = answer;

  const json = answer.complete ? parseWeixinJson(head) : undefined;
  if (json !== undefined) {
    const known = classifyJson(json, sent, source);
    if (known !== undefined) return known;
  }
  if (status !== 200) return failed('weixin-bad-gateway', { httpStatus: status, detail: excerpt(head, sent) });
  if (answer.complete && head.byteLength === 0) return failed('body-empty');

  const declaredMedia = isMediaType(declaredType);
  const notMedia = (): Reply =>
    failed(declaredMedia || disposition !== undefined ? 'body-not-media' : 'weixin-unexpected-reply', {
      detail: excerpt(head, sent),
    });
  if (looksLikeMarkup(head)) {
    return declaredMedia || disposition !== undefined
      ? notMedia()
      : failed('weixin-bad-gateway', { detail: excerpt(head, sent) });
  }

  const sniffed = await sniffType(head);
  if (sniffed === undefined) {
    const attached = disposition !== undefined && !isTextType(declaredType);
    if (!declaredMedia && !attached) return notMedia();
    const mustHaveMagic = /^(image|video)\//.test(declaredType ?? '');
    if (mustHaveMagic && (disposition === undefined || head.every((byte) => byte === 0))) return notMedia();
    if (answer.complete && startsLikeError(head)) return notMedia();
    const mayBeText = kind === 'file' && attached && !declaredMedia;
    if (!mayBeText && (json !== undefined || looksLikeText(head))) return notMedia();
  }
  const namedExtension = extensionOfDisposition(disposition);
  return {
    type: 'media',
    ...(declaredType === undefined ? {} : { declaredType }),
    ...(sniffed === undefined ? {} : { sniffed }),
    ...(namedExtension === undefined ? {} : { namedExtension }),
  };
}

/** A JSON object is WeChat's only if it has a field that WeChat's have; `undefined` for any other. */
function classifyJson(json: Readonly<Record<string, unknown>>, sent: Secret, source: ErrorSource): Reply | undefined {
  const url = json['video_url'];
  const errcode = errcodeOf(json);
  if (typeof url === 'string' && url !== '' && (errcode === undefined || errcode === 0))
    // The address may end up in a failure; WeChat's own never have the token in them.
    return { type: 'video-url', url: withoutSecret(url, sent) };
  return 'errcode' in json ? { type: 'failure', failure: failureOfReply(json, source, sent) } : undefined;
}

/** An error that is not JSON, because it was cut or something was written into or behind it, is still no media. */
function startsLikeError(head: Buffer): boolean {
  const start = head.toString('utf8', 0, SNIFF_BYTES);
  return startsLikeJson(start) && /"errcode"\s*:/.test(start);
}

/** The beginning of an odd answer, for the operator who has to make sense of it. */
function excerpt(head: Buffer, sent: Secret): string | undefined {
  // Blotted out before it is cut: half a token is no longer recognised as one.
  const text = readable(head.toString('utf8'), sent).slice(0, 120).trim();
  return text === '' ? undefined : text;
}

function failed(...args: Parameters<typeof failure>): Reply {
  return { type: 'failure', failure: failure(...args) };
}
