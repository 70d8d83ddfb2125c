import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { nextMidnightInBeijing } from '../../queue/gate-rules.ts';
import { type Clock, DAY, MINUTE } from '../../time.ts';
import { type CloudRun, type CloudRunOptions, openCloudRun } from './cloud-run.ts';
import { ComponentOffice } from './component-office.ts';
import { type Fault, FaultBoard } from './fault.ts';
import { readText, sendText, startLoopbackServer } from './loopback-server.ts';
import { exactBytes, SAMPLE_FORMATS, type SampleFormat, sampleBytes } from './sample-media.ts';
import { sendFault, sendMedia } from './send-answer.ts';
import { hdVoiceOf, type SimulatedMedia } from './simulated-media.ts';
import { TokenOffice } from './token-office.ts';
import { weixinError } from './weixin-error.ts';

/** WeChat keeps temporary media three days. */
const MEDIA_LIFE_MS = 3 * DAY;
/** How long an address of a video works. Not published; short, so that a client must not keep it. */
const VIDEO_KEY_LIFE_MS = 10 * MINUTE;

export interface SimulatedApp {
  readonly appId: string;
  readonly secret: string;
  /** Calls of media/get. Default: no limit. */
  readonly dailyQuota?: number;
  readonly minuteQuota?: number;
  /** False for an account that is not verified: it gets no HD voice. */
  readonly hdVoice?: boolean;
}

export interface NewMedia {
  readonly appId: string;
  readonly format: SampleFormat;
  readonly sizeBytes?: number;
  /** These very bytes in place of a sample. */
  readonly bytes?: Buffer;
  readonly mediaId?: string;
  readonly ageMs?: number;
  readonly deliver?: 'bytes' | 'video-url';
  readonly fileName?: string;
}

/** What has been asked of the simulator. */
export interface SimulatorCounts {
  /** Calls of the token endpoints, by app. */
  readonly tokens: Map<string, number>;
  /** Those of them that asked to force, by app. */
  readonly forced: Map<string, number>;
  /** Calls of media/get, by media id. */
  readonly media: Map<string, number>;
  /** Answers in error, by errcode. */
  readonly errors: Map<number, number>;
  videos: number;
}

/**
 * A WeChat that runs on loopback: the temporary-media API over real HTTP, with its real headers and texts, its own
 * clock, and faults on demand. For the demo and the tests.
 */
export interface WeixinSimulator {
  /** For WEIXIN_API_BASE_URL. */
  readonly url: string;
  readonly counts: SimulatorCounts;
  /** Third-party platforms, and who has authorised them. An account's app is added like any other. */
  readonly platforms: ComponentOffice;
  addApp(app: SimulatedApp): void;
  addMedia(media: NewMedia): SimulatedMedia;
  /** Returns what ends the fault. */
  arm(fault: Fault): () => void;
  /** Ends all armed faults. */
  disarm(): void;
  /** As if another system had refreshed the app's token by force. */
  rotateToken(appId: string, kind?: 'stable_token' | 'token'): void;
  /** Makes the tokens of an app issued from now on live so long. */
  setTokenLife(appId: string, lifeMs: number): void;
  /** Opens an environment of WeChat Cloud Run, whose calls come to the same address. The simulator has one at most. */
  openCloudRun(options: CloudRunOptions): CloudRun;
  /** Every token ever issued, but those of WeChat Cloud Run. */
  issuedTokens(): string[];
  /** Moves the simulator's clock. */
  advance(ms: number): void;
  close(): Promise<void>;
}

interface App extends SimulatedApp {
  readonly office: TokenOffice;
  readonly calls: number[];
}

/** A Content-Type of token answers as it was seen: "encoding", not "charset". */
const TOKEN_CONTENT_TYPE = 'application/json; encoding=utf-8';

const COMPONENT_PATH = '/cgi-bin/component/';
const TOKEN_ERRCODES = { unknown: 40014, replaced: 40001, expired: 42001 } as const;

/** @param port default: one that is free. */
export async function startWeixinSimulator({ port = 0 }: { readonly port?: number } = {}): Promise<WeixinSimulator> {
  const apps = new Map<string, App>();
  const library = new Map<string, SimulatedMedia>();
  const videoKeys = new Map<string, { readonly media: SimulatedMedia; readonly validUntil: number }>();
  const faults = new FaultBoard();
  const platforms = new ComponentOffice(() => now());
  const counts: SimulatorCounts = {
    tokens: new Map(),
    forced: new Map(),
    media: new Map(),
    errors: new Map(),
    videos: 0,
  };
  const losing = new WeakSet<ServerResponse>();
  const requestsOfSocket = new WeakMap<Socket, number>();
  let cloudRun: CloudRun | undefined;
  let offsetMs = 0;
  const now: Clock = () => Date.now() + offsetMs;

  const loopback = await startLoopbackServer((request, response) => {
    route(request, response).catch(() => response.destroy());
  }, port);
  // WeChat's access points close idle sockets; which is when stale ones are met.
  loopback.server.keepAliveTimeout = 5_000;
  const base = loopback.url;

  async function route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    requestsOfSocket.set(request.socket, (requestsOfSocket.get(request.socket) ?? 0) + 1);
    const url = new URL(request.url ?? '/', base);
    switch (url.pathname) {
      case '/cgi-bin/token':
        return token(request, response, url);
      case '/cgi-bin/stable_token':
        return stableToken(request, response);
      case '/cgi-bin/media/get':
      case '/cgi-bin/media/get/jssdk':
        return media(request, response, url);
      default:
        if (url.pathname.startsWith('/vweixinp.tc.qq.com/')) return video(request, response, url);
        if (url.pathname.startsWith(COMPONENT_PATH)) return component(request, response, url);
        return refuse(response, 40066);
    }
  }

  async function token(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    const app = await admitToToken(request, response, url.searchParams.get('appid'), url.searchParams.get('secret'));
    if (app !== undefined) answerToken(response, app.office.issue());
  }

  async function stableToken(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.method !== 'POST') return refuse(response, 43002, 'application/json');
    const body = parseObject(await readText(request));
    if (body === undefined || body['grant_type'] !== 'client_credential')
      return refuse(response, 47001, 'application/json');
    const force = body['force_refresh'] === true;
    const app = await admitToToken(request, response, body['appid'], body['secret'], force);
    if (app === undefined) return;
    const answer = app.office.stable(force);
    if (answer === 'too-many-forces') refuse(response, 45009, 'application/json');
    else answerToken(response, answer);
  }

  async function admitToToken(
    request: IncomingMessage,
    response: ServerResponse,
    appId: unknown,
    secret: unknown,
    forced = false,
  ): Promise<App | undefined> {
    const app = typeof appId === 'string' ? apps.get(appId) : undefined;
    if (app !== undefined) count(counts.tokens, app.appId);
    if (app !== undefined && forced) count(counts.forced, app.appId);
    const fault = faults.take('token', app?.appId, undefined, forced);
    if (fault?.type === 'lost-answer') losing.add(response);
    else if (fault !== undefined) {
      await sendFault(fault, undefined, context(request, response));
      return undefined;
    }
    if (app === undefined) refuse(response, 40013, 'application/json');
    else if (app.secret !== secret)
      refuse(response, 40125, 'application/json', 'invalid appsecret, view more at http://t.cn/RAEkdVq');
    else return app;
    return undefined;
  }

  function answerToken(
    response: ServerResponse,
    { token: value, expiresInSeconds }: { token: string; expiresInSeconds: number },
  ): void {
    if (losing.has(response)) response.socket?.resetAndDestroy();
    else sendText(response, TOKEN_CONTENT_TYPE, JSON.stringify({ access_token: value, expires_in: expiresInSeconds }));
  }

  async function component(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    const name = url.pathname.slice(COMPONENT_PATH.length);
    const body = parseObject(await readText(request));
    const fault = faults.take('component', String(body?.['component_appid']), undefined, false, name);
    if (fault !== undefined && fault.type !== 'lost-answer')
      return sendFault(fault, undefined, context(request, response));
    if (request.method !== 'POST') return refuse(response, 43002, 'application/json');
    if (body === undefined) return refuse(response, 47001, 'application/json');
    const reply = platforms.answer(name, body, url.searchParams.get('access_token') ?? '');
    if (fault !== undefined) response.socket?.resetAndDestroy();
    else if ('errcode' in reply) refuse(response, reply.errcode, 'application/json');
    else sendText(response, TOKEN_CONTENT_TYPE, JSON.stringify(reply.json));
  }

  /** Checks in the order token, quota, media id. */
  async function media(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    const mediaId = url.searchParams.get('media_id') ?? '';
    count(counts.media, mediaId);
    const hasToken = url.searchParams.has('access_token') || url.searchParams.has('cloudbase_access_token');
    if (!hasToken && cloudRun?.admit(url, response, (errcode) => refuse(response, errcode)) === false) return;
    const caller = callerOf(url);
    const { app } = caller;
    const isHdVoice = url.pathname.endsWith('/jssdk');
    const stored = library.get(mediaId);
    const found = isHdVoice ? hdVoiceOf(stored) : stored;

    const fault = faults.take('media', app?.appId ?? found?.appId, mediaId);
    if (fault !== undefined) return sendFault(fault, found, context(request, response));

    const refused = isHdVoice && app?.hdVoice === false ? 48001 : undefined;
    const errcode = caller.errcode ?? refused ?? errcodeFor(app, mediaId, found);
    if (errcode !== undefined) return refuse(response, errcode);
    if (found === undefined) return;
    if (found.deliver === 'bytes') return sendMedia(found, context(request, response));

    const key = randomBytes(40).toString('hex').toUpperCase();
    videoKeys.set(key, { media: found, validUntil: now() + VIDEO_KEY_LIFE_MS });
    const path = `/vweixinp.tc.qq.com/1007_${randomBytes(16).toString('hex')}.f10.mp4?vkey=${key}&sha=0&save=1`;
    sendText(response, 'text/plain', JSON.stringify({ video_url: `${base}${path}` }));
  }

  /** Whose call it is, as far as it can be told, and what speaks against its token. */
  function callerOf({ searchParams }: URL): { readonly app?: App | undefined; readonly errcode?: number | undefined } {
    const ofCloud = searchParams.get('cloudbase_access_token');
    if (ofCloud !== null && cloudRun !== undefined) {
      const verdict = cloudRun.judge(ofCloud, searchParams.get('from_appid'));
      return 'errcode' in verdict ? verdict : { app: apps.get(verdict.appId) };
    }
    const given = searchParams.get('access_token') ?? '';
    if (given === '') return { errcode: 41001 };
    const authorizer = platforms.judge(given);
    if (authorizer !== undefined) return { app: apps.get(authorizer.appId), errcode: authorizer.errcode };
    const app = [...apps.values()].find(({ office }) => office.judge(given) !== 'unknown');
    const verdict = app?.office.judge(given) ?? 'unknown';
    return { app, ...(verdict === 'valid' ? {} : { errcode: TOKEN_ERRCODES[verdict] }) };
  }

  function errcodeFor(app: App | undefined, mediaId: string, found: SimulatedMedia | undefined): number | undefined {
    if (app === undefined) return 48001;
    const time = now();
    const today = app.calls.filter((at) => nextMidnightInBeijing(at) > time);
    if (app.dailyQuota !== undefined && today.length >= app.dailyQuota) return 45009;
    if (app.minuteQuota !== undefined && today.filter((at) => time - at < MINUTE).length >= app.minuteQuota)
      return 45011;
    if (app.dailyQuota !== undefined || app.minuteQuota !== undefined) app.calls.push(time);
    if (mediaId === '') return 41006;
    if (found === undefined || found.appId !== app.appId || time - found.sentAt > MEDIA_LIFE_MS) return 40007;
    return undefined;
  }

  async function video(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    counts.videos += 1;
    const known = videoKeys.get(url.searchParams.get('vkey') ?? '');
    const fault = faults.take('video', known?.media.appId, known?.media.mediaId);
    if (fault !== undefined) return sendFault(fault, known?.media, context(request, response));
    if (known === undefined || now() > known.validUntil) {
      response.writeHead(403, { 'Content-Type': 'text/html' }).end('<html>403 Forbidden</html>');
      return;
    }
    return sendMedia(known.media, { ...context(request, response), disposition: false });
  }

  function context(request: IncomingMessage, response: ServerResponse): Parameters<typeof sendMedia>[1] {
    return {
      response,
      disposition: true,
      requestsOfSocket: requestsOfSocket.get(request.socket) ?? 1,
      refuse: (errcode, errmsg, asString) => refuse(response, errcode, 'text/plain', errmsg, asString),
    };
  }

  function refuse(
    response: ServerResponse,
    errcode: number,
    contentType = 'text/plain',
    errmsg?: string,
    asString?: boolean,
  ): void {
    count(counts.errors, errcode);
    sendText(response, contentType, weixinError(errcode, errmsg, now(), asString));
  }

  return {
    url: base,
    counts,
    platforms,
    addApp: (app) => void apps.set(app.appId, { ...app, office: new TokenOffice(now), calls: [] }),
    addMedia: ({ appId, format, sizeBytes = 20_000, bytes, ageMs = 0, deliver = 'bytes', ...names }) => {
      const mediaId = names.mediaId ?? newMediaId();
      const added: SimulatedMedia = {
        appId,
        mediaId,
        format,
        deliver,
        bytes: bytes === undefined ? sampleBytes(format, sizeBytes, mediaId) : exactBytes(bytes),
        sentAt: now() - ageMs,
        fileName: names.fileName ?? `${mediaId}.${SAMPLE_FORMATS[format].extension}`,
      };
      library.set(mediaId, added);
      return added;
    },
    arm: (fault) => faults.arm(fault),
    disarm: () => faults.clear(),
    rotateToken: (appId, kind = 'stable_token') => apps.get(appId)?.office.rotate(kind),
    setTokenLife: (appId, lifeMs) => {
      const office = apps.get(appId)?.office;
      if (office !== undefined) office.lifeMs = lifeMs;
    },
    openCloudRun: (options) => {
      cloudRun = openCloudRun(options, now);
      return cloudRun;
    },
    issuedTokens: () => [...[...apps.values()].flatMap(({ office }) => office.all), ...platforms.issued],
    advance: (ms) => {
      offsetMs += ms;
    },
    close: () => loopback.close(),
  };
}

/** 64 characters of the alphabet that real ones have. */
export function newMediaId(): string {
  return randomBytes(48).toString('base64url');
}

function count<Key>(counts: Map<Key, number>, key: Key): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

function parseObject(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
