import type { Secret } from '../../secret.ts';

/**
 * How an app proves itself to WeChat.
 *
 * - `stable_token`: POST /cgi-bin/stable_token; asking again gives the same token. The right choice.
 * - `token`: GET /cgi-bin/token; every call issues a new token and retires the one before. For apps that already
 *   depend on it. Never use both for one app.
 * - `authorizer`: the app has authorised a third-party platform, whose tokens are used.
 * - `external`: a service of the operator's issues the tokens. We only read them.
 * - `cloud`: WeChat Cloud Run, where no access_token is needed.
 */
export type Credential = OwnCredential | AuthorizerCredential | ExternalCredential | CloudCredential;

export interface OwnCredential {
  readonly type: 'stable_token' | 'token';
  readonly secret: Secret;
}

export interface AuthorizerCredential {
  readonly type: 'authorizer';
  readonly component: Component;
  /** A refresh token that was had elsewhere. Used until the platform has one of its own, which is kept in Redis. */
  readonly refreshToken?: Secret;
}

export interface ExternalCredential {
  readonly type: 'external';
  readonly source: TokenService | { readonly redisKey: string; readonly path?: readonly string[] };
}

/** A token service over HTTP. */
export interface TokenService {
  readonly url: URL;
  readonly headers: Readonly<Record<string, Secret>>;
  /** Where the token stands in the JSON that it answers, from the outside in. */
  readonly path: readonly string[];
  /** Called to say that WeChat rejects the token, which is not sent. */
  readonly invalidate?: { readonly url: URL; readonly method: 'POST' | 'PUT' | 'DELETE' | 'GET' };
}

export interface CloudCredential {
  readonly type: 'cloud';
  /**
   * - `sidecar`: the open-interface service takes plain http calls without a token.
   * - `token-file`: a token lies in a file that WeChat renews.
   */
  readonly mode: 'sidecar' | 'token-file';
  /** Names the app in each call, as an environment that several apps share needs it. */
  readonly namesApp: boolean;
  /** Of `token-file`. */
  readonly tokenFile: string;
}

/** How an app's message pushes are known to be WeChat's. */
export interface PushSettings {
  readonly token: Secret;
  /** 43 characters; absent where pushes come in plaintext. */
  readonly encodingAesKey?: Secret;
  /** True where a push that is not encrypted is refused although it is signed. */
  readonly mustBeEncrypted: boolean;
}

/** Pushes of WeChat Cloud Run come through WeChat's own link, unsigned. */
export type AccountPush = { readonly type: 'signed'; readonly settings: PushSettings } | { readonly type: 'cloud' };

export interface Account<C extends Credential = Credential> {
  readonly appId: string;
  readonly credential: C;
  readonly push?: AccountPush;
}

export type OwnAccount = Account<OwnCredential>;

export function isOwn(account: Account): account is OwnAccount {
  return account.credential.type === 'stable_token' || account.credential.type === 'token';
}

/** A third-party platform. */
export interface Component {
  readonly appId: string;
  readonly secret: Secret;
  readonly push: PushSettings;
}
