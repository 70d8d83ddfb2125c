import { randomBytes } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import { type Clock, MINUTE } from '../../time.ts';
import { sendText } from './loopback-server.ts';

/** A token in the file lives so long, and is replaced so often. */
const TOKEN_LIFE_MS = 30 * MINUTE;
const TOKEN_EVERY_MS = 10 * MINUTE;

const MEDIA_PATHS = ['/cgi-bin/media/get', '/cgi-bin/media/get/jssdk'];

export interface CloudRunOptions {
  /** Whose environment it is: calls that name no app are its own. */
  readonly owner: string;
  /** Apps that share the environment. Default: none. */
  readonly sharedWith?: readonly string[];
}

/** How an environment judges a call: the app that makes it, or the errcode that it gets. */
export type CloudVerdict = { readonly appId: string } | { readonly errcode: number };

/**
 * An environment of WeChat Cloud Run: the token in its file, and the open-interface service, which gives a token to
 * plain calls that come without one.
 *
 * @see https://developers.weixin.qq.com/miniprogram/dev/wxcloudrun/src/guide/weixin/open.html
 * @see https://developers.weixin.qq.com/minigame/dev/wxcloud/guide/container/cloudcall.html
 */
export interface CloudRun {
  /** False while the open-interface service is off, or has not started yet. */
  isOpen: boolean;
  /** The paths that its console allows. Default: those of media. */
  allowedPaths: readonly string[];
  /** How many calls the open-interface service has passed on. */
  readonly passedOn: number;
  /** What lies in the token file now. */
  token(): string;
  /** Every token that has lain there. */
  issuedTokens(): string[];
  /** Says whose call it is by the token and the name of the app that it carries. */
  judge(token: string, fromAppId: string | null): CloudVerdict;
  /**
   * Does what the open-interface service does with a call that carries no token: gives it one, or refuses it. Returns
   * false when the answer has been sent.
   */
  admit(url: URL, response: ServerResponse, refuse: (errcode: number) => void): boolean;
}

export function openCloudRun({ owner, sharedWith = [] }: CloudRunOptions, now: Clock): CloudRun {
  const issued: { readonly token: string; readonly issuedAt: number }[] = [];
  let passedOn = 0;

  function token(): string {
    const last = issued.at(-1);
    if (last !== undefined && now() - last.issuedAt < TOKEN_EVERY_MS) return last.token;
    const next = { token: `cloudbase_${randomBytes(96).toString('base64url')}`, issuedAt: now() };
    issued.push(next);
    return next.token;
  }

  const cloudRun: CloudRun = {
    isOpen: true,
    allowedPaths: MEDIA_PATHS,
    get passedOn() {
      return passedOn;
    },
    token,
    issuedTokens: () => issued.map((one) => one.token),
    judge: (given, fromAppId) => {
      const known = issued.find((one) => one.token === given);
      if (known === undefined) return { errcode: 40014 };
      if (now() - known.issuedAt >= TOKEN_LIFE_MS) return { errcode: 42001 };
      const appId = fromAppId ?? owner;
      return appId === owner || sharedWith.includes(appId) ? { appId } : { errcode: 48001 };
    },
    admit: (url, response, refuse) => {
      if (!cloudRun.isOpen) {
        refuse(41001);
        return false;
      }
      if (!cloudRun.allowedPaths.includes(url.pathname)) {
        sendText(response, 'text/html', '<html><body>502 Bad Gateway</body></html>', 502);
        return false;
      }
      passedOn += 1;
      response.setHeader('x-openapi-seqid', randomBytes(8).toString('hex'));
      url.searchParams.set('cloudbase_access_token', token());
      return true;
    },
  };
  return cloudRun;
}
