import { startWeixinSimulator, type WeixinSimulator } from '../../src/demo/weixin/weixin-simulator.ts';
import type { Failure } from '../../src/failure.ts';
import type { MediaJob } from '../../src/media/media-job.ts';
import { createApiHosts } from '../../src/weixin/api-hosts.ts';
import type { Account, Credential } from '../../src/weixin/credentials/account.ts';
import type { TokenRefresh, TokenSource } from '../../src/weixin/credentials/issued-token.ts';
import { createTokenSource } from '../../src/weixin/credentials/token-source.ts';
import { createHttpPool } from '../../src/weixin/http.ts';
import { createVideoDownloader } from '../../src/weixin/video-url.ts';
import { createWeixinClient } from '../../src/weixin/weixin-client.ts';
import { type TestClock, testClock } from './clock.ts';
import { APP_ID, APP_SECRET, OTHER_APP_ID, testJob } from './jobs.ts';
import { openTestRedis, type TestRedis } from './redis.ts';
import { readAll, TEST_TIMEOUTS } from './weixin.ts';

const MAX_BYTES = 1024 * 1024;

/** The bytes of a media, or why there are none. */
export type Fetched = { readonly bytes: Buffer; readonly declaredType?: string } | Failure;

/** Two apps at a simulator, a corner of Redis, and workers with the real token sources. */
export interface CredentialBench extends AsyncDisposable {
  readonly simulator: WeixinSimulator;
  readonly corner: TestRedis;
  readonly clock: TestClock;
  readonly refreshes: TokenRefresh[];
  /** The accounts and the API hosts of what is made from now on. */
  use(credentials: Readonly<Record<string, Credential>>, urls?: readonly string[]): void;
  /** Moves our clock and WeChat's. */
  advance(ms: number): void;
  account(appId?: string): Account;
  /** The API host that the next call with a token goes to. */
  nextHost(): string;
  /** The tokens as another process would have them. */
  tokens(): TokenSource;
  /** Fetches a media as a worker does, with tokens of its own unless some are given. */
  fetch(job: Partial<MediaJob>, tokens?: TokenSource): Promise<Fetched>;
}

export async function openCredentialBench(): Promise<CredentialBench> {
  const corner = await openTestRedis();
  const simulator = await startWeixinSimulator();
  for (const appId of [APP_ID, OTHER_APP_ID]) simulator.addApp({ appId, secret: APP_SECRET });
  const http = createHttpPool(TEST_TIMEOUTS, 8);
  const videos = createVideoDownloader({ timeouts: TEST_TIMEOUTS, maxBytes: MAX_BYTES, allowHosts: ['127.0.0.1'] });
  const clock = testClock(Date.now());
  const refreshes: TokenRefresh[] = [];
  const random = (): number => 0;
  let accounts: Account[] = [];
  let hosts = createApiHosts([new URL(simulator.url)], clock.now);

  function tokens(): TokenSource {
    const parts = { redis: corner.connect(), keys: corner.keys, endpoint: { hosts, http } };
    return createTokenSource({ ...parts, now: clock.now, random, onRefresh: (refresh) => refreshes.push(refresh) });
  }

  return {
    simulator,
    corner,
    clock,
    refreshes,
    use: (credentials, urls = [simulator.url]) => {
      accounts = Object.entries(credentials).map(([appId, credential]) => ({ appId, credential }));
      hosts = createApiHosts(
        urls.map((url) => new URL(url)),
        clock.now,
      );
    },
    advance: (ms) => {
      clock.advance(ms);
      simulator.advance(ms);
    },
    account: (appId = APP_ID) => {
      const found = accounts.find((account) => account.appId === appId);
      if (found === undefined) throw new Error(`no credential for ${appId}`);
      return found;
    },
    nextHost: () => hosts.next().origin,
    tokens,
    fetch: async (job, of = tokens()) => {
      const book = { find: (appId: string) => accounts.find((account) => account.appId === appId) };
      const common = { accounts: book, tokens: of, hosts, http, videos, timeouts: TEST_TIMEOUTS, random };
      const client = createWeixinClient({ ...common, maxBytes: MAX_BYTES });
      const fetched = await client.fetch(testJob(job), new AbortController().signal);
      if (!fetched.ok) return fetched.failure;
      const { declaredType } = fetched.value;
      return { bytes: await readAll(fetched.value), ...(declaredType === undefined ? {} : { declaredType }) };
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all([http.close(), videos.close()]);
      await simulator.close();
      await corner[Symbol.asyncDispose]();
    },
  };
}
