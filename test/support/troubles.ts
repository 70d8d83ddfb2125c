import type { FaultAction } from '../../src/demo/weixin/fault.ts';
import type { FailureCode } from '../../src/failure.ts';

export interface FaultRow {
  readonly action: FaultAction;
  /** What an attempt that meets it fails with. */
  readonly failure: FailureCode;
  /** Tried again within the attempt. */
  readonly withinAttempt?: true;
}

const HTML = '<!DOCTYPE html><html><body>busy</body></html>';

/** What spoils an attempt. */
export const SPOILING: readonly FaultRow[] = [
  { action: { type: 'errcode', errcode: -1 }, failure: 'weixin-busy', withinAttempt: true },
  { action: { type: 'errcode', errcode: -1, asString: true }, failure: 'weixin-busy', withinAttempt: true },
  { action: { type: 'errcode', errcode: 40001 }, failure: 'token-rejected', withinAttempt: true },
  { action: { type: 'errcode', errcode: 40014 }, failure: 'token-rejected', withinAttempt: true },
  { action: { type: 'errcode', errcode: 42001 }, failure: 'token-rejected', withinAttempt: true },
  { action: { type: 'errcode', errcode: 40002 }, failure: 'weixin-request-refused' },
  { action: { type: 'errcode', errcode: 99_999, errmsg: 'nobody knows' }, failure: 'unclassified' },
  { action: { type: 'truncate' }, failure: 'body-truncated' },
  { action: { type: 'truncate', afterBytes: 1 }, failure: 'body-truncated' },
  { action: { type: 'reset' }, failure: 'weixin-unreachable', withinAttempt: true },
  { action: { type: 'hang', where: 'headers' }, failure: 'weixin-timeout' },
  { action: { type: 'hang', where: 'body' }, failure: 'weixin-timeout' },
  { action: { type: 'empty' }, failure: 'body-empty' },
  { action: { type: 'json-in-disguise', errcode: 99_998 }, failure: 'unclassified' },
  { action: { type: 'html', status: 200 }, failure: 'weixin-bad-gateway' },
  { action: { type: 'html', status: 502 }, failure: 'weixin-bad-gateway' },
  { action: { type: 'text', body: '' }, failure: 'body-empty' },
  { action: { type: 'text', body: 'busy, try later' }, failure: 'weixin-unexpected-reply' },
  { action: { type: 'text', body: '{"errcode":40001,"errm' }, failure: 'weixin-unexpected-reply' },
  { action: { type: 'text', body: '{"ok":true}' }, failure: 'weixin-unexpected-reply' },
  { action: { type: 'text', body: '{"ok":true}', contentType: 'image/jpeg' }, failure: 'body-not-media' },
  { action: { type: 'text', body: HTML, contentType: 'image/jpeg' }, failure: 'body-not-media' },
  { action: { type: 'redirect', location: 'http://127.0.0.1:9/' }, failure: 'weixin-bad-gateway' },
];

/** The same from the host of a `video_url`, which is asked twice within an attempt. */
export const SPOILING_VIDEO: readonly FaultRow[] = [
  { action: { type: 'truncate' }, failure: 'body-truncated' },
  { action: { type: 'reset' }, failure: 'video-url-failed' },
  { action: { type: 'hang', where: 'headers' }, failure: 'weixin-timeout' },
  { action: { type: 'hang', where: 'body' }, failure: 'weixin-timeout' },
  { action: { type: 'empty' }, failure: 'body-empty' },
  { action: { type: 'html', status: 200 }, failure: 'body-not-media' },
  { action: { type: 'html', status: 403 }, failure: 'video-url-failed' },
  { action: { type: 'json-in-disguise', errcode: -1 }, failure: 'body-not-media' },
  { action: { type: 'text', body: '{"errcode":-1}' }, failure: 'body-not-media' },
  { action: { type: 'redirect', location: 'ftp://127.0.0.1/' }, failure: 'video-url-refused' },
];

/** What is odd and yet brings the very bytes. */
export const HARMLESS: readonly FaultAction[] = [
  { type: 'drip', chunkBytes: 5_000, everyMs: 20 },
  { type: 'stale-socket' },
  { type: 'wrong-type', contentType: 'text/plain', disposition: false },
  { type: 'wrong-type', contentType: 'application/octet-stream', disposition: true },
  { type: 'no-length', framing: 'chunked' },
  { type: 'no-length', framing: 'close' },
  { type: 'gzip' },
];
