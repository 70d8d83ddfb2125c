import { setTimeout as sleep } from 'node:timers/promises';
import pRetry from 'p-retry';
import { type Failure, FailureError, type Result } from '../failure.ts';
import type { MediaJob } from '../media/media-job.ts';
import { between, type Random, SECOND } from '../time.ts';
import type { ApiHosts } from './api-hosts.ts';
import { isUnlistedPath } from './cloud-failure.ts';
import type { Account } from './credentials/account.ts';
import type { AccountBook } from './credentials/account-book.ts';
import { type ApiAccess, accessOf } from './credentials/api-access.ts';
import { isBlip } from './credentials/api-call.ts';
import type { TokenSource } from './credentials/issued-token.ts';
import { notConfigured } from './credentials/token-source.ts';
import { type Got, getMedia } from './get-media.ts';
import { type HttpPool, isNoConnection, type WeixinTimeouts } from './http.ts';
import type { MediaBody } from './media-body.ts';
import type { VideoDownloader } from './video-url.ts';

/** Where bytes come from. */
export interface WeixinClient {
  /**
   * Fetches a media, by whatever it takes: a token, a second try after a blip, another host, a `video_url`.
   *
   * The body must be read to its end or discarded.
   *
   * @throws the signal's reason when it aborts.
   */
  fetch(job: MediaJob, signal: AbortSignal): Promise<Result<MediaBody>>;
}

/** Further tries within an attempt after a blip. Anything longer is the retry schedule's. */
const BLIP_RETRIES = 3;
const BLIP_FIRST_PAUSE_MS = 0.3 * SECOND;
/** Tokens tried within an attempt after the first was rejected. */
const TOKEN_RETRIES = 2;
/** Users saw a good token rejected and taken again moments later. */
const TOKEN_PAUSE_MS = [0.5 * SECOND, 1.5 * SECOND] as const;
/** Fresh addresses asked for after a `video_url` could not be followed: its key may have expired. */
const VIDEO_RETRIES = 1;

export interface WeixinClientOptions {
  readonly accounts: Pick<AccountBook, 'find'>;
  readonly tokens: TokenSource;
  readonly hosts: ApiHosts;
  readonly http: HttpPool;
  readonly videos: VideoDownloader;
  readonly timeouts: WeixinTimeouts;
  readonly maxBytes: number;
  readonly random: Random;
}

/** True for a host that took the request and said nothing. Once the first byte has come, silence is the media's. */
function isSilence({ detail }: Failure): boolean {
  return detail === 'UND_ERR_HEADERS_TIMEOUT';
}

/** True when another host might have answered. */
function mayBeOfHost(failure: Failure): boolean {
  return isSilence(failure) || failure.code === 'weixin-bad-gateway' || failure.code === 'weixin-unreachable';
}

/** True when another host should be asked. One reset may be a stale socket; a fresh one that is reset too is the host. */
function isOfHost(failure: Failure, attemptNumber: number): boolean {
  return isSilence(failure) || isNoConnection(failure) || (mayBeOfHost(failure) && attemptNumber > 1);
}

/**
 * True when another token may do. One that was had before an account withdrew its authorisation, and gave it again, is
 * refused as if it still were withdrawn.
 */
function isOfToken({ credential }: Account, { code }: Failure): boolean {
  return code === 'token-rejected' || (code === 'authorization-withdrawn' && credential.type === 'authorizer');
}

export function createWeixinClient(options: WeixinClientOptions): WeixinClient {
  const { accounts, tokens, hosts, http, videos, timeouts, maxBytes, random } = options;

  async function fetch(job: MediaJob, signal: AbortSignal): Promise<Result<MediaBody>> {
    const account = accounts.find(job.appId);
    if (account === undefined) return { ok: false, failure: notConfigured(job.appId) };
    for (let freshAddresses = VIDEO_RETRIES; ; freshAddresses -= 1) {
      const got = await getWithToken(account, job, signal);
      if (!got.ok) return got;
      if (got.value.type === 'media') return { ok: true, value: got.value.body };
      const video = await videos.download(got.value.url, signal);
      if (video.ok || freshAddresses === 0) return video;
    }
  }

  async function getWithToken(account: Account, job: MediaJob, signal: AbortSignal): Promise<Result<Got>> {
    for (let retries = TOKEN_RETRIES; ; retries -= 1) {
      const issued = await tokens.current(account, signal);
      if (!issued.ok) return issued;
      const { token, generation } = issued.value;
      const got = await acrossBlips(job, accessOf(account, token), signal);
      if (got.ok || !isOfToken(account, got.failure)) return got;
      const refused = await tokens.reject(account, generation, signal);
      if (refused?.code === 'external-token-stale') {
        // In the words of the rejection. It is tried again all the same: rejections flap.
        if (retries === 0) return { ok: false, failure: { ...got.failure, ...refused } };
      } else if (refused !== undefined) return { ok: false, failure: refused };
      else if (retries === 0) return got;
      const next = await tokens.current(account, signal);
      if (next.ok && next.value.generation === generation)
        await sleep(between(...TOKEN_PAUSE_MS, random), undefined, { signal });
    }
  }

  async function acrossBlips(job: MediaJob, access: ApiAccess, signal: AbortSignal): Promise<Result<Got>> {
    const asked = new Set<URL>();
    async function tryOnce(attemptNumber: number): Promise<Got> {
      // A sidecar stands in for the one host, and says nothing about it when it can't be reached.
      const baseUrl = access.plainHttp ? hosts.preferred : hosts.next();
      asked.add(baseUrl);
      const dispatcher = attemptNumber === 1 ? http.pooled : http.fresh;
      const got = await getMedia({ baseUrl, access, job, dispatcher, timeouts, maxBytes }, signal);
      if (got.ok) return got.value;
      if (!access.plainHttp && mayBeOfHost(got.failure))
        hosts.unreachable(baseUrl, !isOfHost(got.failure, attemptNumber));
      throw new FailureError(got.failure);
    }
    /** Silence lasts long: it is worth another try at a host that has not been silent yet. */
    function isWorthATry(failure: Failure): boolean {
      if (access.plainHttp) return isBlip(failure) || isUnlistedPath(failure);
      return isBlip(failure) || (isSilence(failure) && hosts.hasOther(asked));
    }
    try {
      const got = await pRetry(tryOnce, {
        retries: BLIP_RETRIES,
        minTimeout: BLIP_FIRST_PAUSE_MS,
        factor: 2,
        randomize: true,
        shouldRetry: ({ error }) => error instanceof FailureError && isWorthATry(error.failure),
        signal,
      });
      return { ok: true, value: got };
    } catch (error) {
      if (error instanceof FailureError) return { ok: false, failure: error.failure satisfies Failure };
      throw error;
    }
  }

  return { fetch };
}
