import { startWeixinSimulator, type WeixinSimulator } from '../../src/demo/weixin/weixin-simulator.ts';
import { succeed } from '../../src/failure.ts';
import { Secret } from '../../src/secret.ts';
import { createApiHosts } from '../../src/weixin/api-hosts.ts';
import type { TokenSource } from '../../src/weixin/credentials/issued-token.ts';
import { createHttpPool, type HttpPool, type WeixinTimeouts } from '../../src/weixin/http.ts';
import type { MediaBody } from '../../src/weixin/media-body.ts';
import { createVideoDownloader } from '../../src/weixin/video-url.ts';
import { createWeixinClient, type WeixinClient } from '../../src/weixin/weixin-client.ts';
import { APP_ID, APP_SECRET, testAccount } from './jobs.ts';

/** Long enough for a busy machine, short enough for a test that waits one out. */
export const TEST_TIMEOUTS: WeixinTimeouts = { connectMs: 5_000, responseMs: 20_000, idleMs: 20_000, totalMs: 30_000 };

/** A simulator with one app, and a client of it whose tokens come straight from the simulator. */
export interface WeixinBench extends AsyncDisposable {
  readonly simulator: WeixinSimulator;
  readonly client: WeixinClient;
  readonly http: HttpPool;
  /** The token that the client uses. */
  token(): Promise<Secret>;
}

export interface WeixinBenchOptions {
  readonly timeouts?: Partial<WeixinTimeouts>;
  readonly maxBytes?: number;
  readonly allowHosts?: readonly string[];
  /** In place of the simulator alone. */
  readonly hosts?: (simulatorUrl: string) => readonly string[];
  readonly tokens?: TokenSource;
}

export async function openWeixinBench(options: WeixinBenchOptions = {}): Promise<WeixinBench> {
  const { maxBytes = 64 * 1024 * 1024, allowHosts = ['127.0.0.1'] } = options;
  const timeouts = { ...TEST_TIMEOUTS, ...options.timeouts };
  const simulator = await startWeixinSimulator();
  simulator.addApp({ appId: APP_ID, secret: APP_SECRET });
  const http = createHttpPool(timeouts, 8);
  const videos = createVideoDownloader({ timeouts, maxBytes, allowHosts });
  const urls = options.hosts?.(simulator.url) ?? [simulator.url];
  const hosts = createApiHosts(
    urls.map((url) => new URL(url)),
    Date.now,
  );

  const token = async (): Promise<Secret> => new Secret((await askToken(simulator.url)).access_token);
  let current: Secret | undefined;
  const tokens: TokenSource = options.tokens ?? {
    current: async () => {
      current ??= await token();
      return succeed({ token: current, generation: current.reveal() });
    },
    reject: async () => {
      current = undefined;
      return undefined;
    },
  };
  const account = testAccount();
  const accounts = { find: (appId: string) => (appId === account.appId ? account : undefined) };
  const client = createWeixinClient({ accounts, tokens, hosts, http, videos, timeouts, maxBytes, random: () => 0 });
  return {
    simulator,
    client,
    http,
    token: async () => current ?? token(),
    [Symbol.asyncDispose]: async () => {
      await Promise.all([http.close(), videos.close()]);
      await simulator.close();
    },
  };
}

export interface TokenAnswerJson {
  readonly access_token: string;
  readonly expires_in: number;
  readonly errcode?: number;
}

/** Asks the simulator for a stable_token, as WeChat is asked. */
export async function askToken(url: string, force = false): Promise<TokenAnswerJson> {
  const response = await fetch(`${url}/cgi-bin/stable_token`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ grant_type: 'client_credential', appid: APP_ID, secret: APP_SECRET, force_refresh: force }),
  });
  return (await response.json()) as TokenAnswerJson;
}

/** Asks for a token of the other kind. */
export async function askPlainToken(url: string): Promise<TokenAnswerJson> {
  const query = new URLSearchParams({ grant_type: 'client_credential', appid: APP_ID, secret: APP_SECRET });
  return (await (await fetch(`${url}/cgi-bin/token?${query}`)).json()) as TokenAnswerJson;
}

export function mediaUrl(url: string, token: string, mediaId: string): string {
  return `${url}/cgi-bin/media/get?${new URLSearchParams({ access_token: token, media_id: mediaId })}`;
}

export async function readAll(body: Pick<MediaBody, 'chunks'>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of body.chunks) chunks.push(chunk);
  return Buffer.concat(chunks);
}
