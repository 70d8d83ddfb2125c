import { randomBytes, randomInt } from 'node:crypto';
import { type Clock, HOUR, MINUTE, SECOND } from '../../time.ts';

const TOKEN_LIFE_MS = 7_200 * SECOND;
const OVERLAP_MS = 5 * MINUTE;
const TICKET_LIFE_MS = 12 * HOUR;
/** Not published for all its kinds; the pre-authorisation code is said to live so long. */
const CODE_LIFE_MS = 10 * MINUTE;

interface Expiring {
  readonly value: string;
  expiresAt: number;
}

interface Authorizer {
  readonly appId: string;
  refreshToken: string;
  withdrawn: boolean;
  readonly tokens: Expiring[];
  readonly codes: Expiring[];
  /** Tokens of an authorisation that was withdrawn. */
  readonly revoked: Set<string>;
}

interface Platform {
  readonly appId: string;
  readonly secret: string;
  readonly tickets: Expiring[];
  readonly tokens: Expiring[];
  readonly authorizers: Map<string, Authorizer>;
  ticketsAskedFor: number;
}

/** What a call is answered with: JSON, or an errcode. */
export type ComponentReply = { readonly json: object } | { readonly errcode: number };

/**
 * The third-party platforms, as WeChat keeps them: tickets, the platform's tokens, and the accounts that have authorised
 * it with their codes, refresh tokens and tokens.
 *
 * @see https://developers.weixin.qq.com/doc/oplatform/Third-party_Platforms/2.0/api/ThirdParty/token/component_access_token.html
 */
export class ComponentOffice {
  readonly #now: Clock;
  readonly #platforms = new Map<string, Platform>();
  /** Every secret ever given out, for tests that look for leaks. */
  readonly issued: string[] = [];
  /** Calls by name. */
  readonly counts = new Map<string, number>();
  /** Accounts that may not call the API: their authorisations bring no tokens. */
  readonly withoutTokens = new Set<string>();
  /** WeChat lists 500 accounts at most, and nobody promises that it lists as many as it is asked for. */
  longestPage = 500;
  /** False where a refresh token stays the same for as long as the authorisation lasts. */
  rotates = true;
  tokenLifeMs = TOKEN_LIFE_MS;

  constructor(now: Clock) {
    this.#now = now;
  }

  addPlatform({ appId, secret }: { readonly appId: string; readonly secret: string }): void {
    const empty = { tickets: [], tokens: [], authorizers: new Map(), ticketsAskedFor: 0 };
    this.#platforms.set(appId, { appId, secret, ...empty });
  }

  /** The ticket that the next push carries. Those before it hold for their twelve hours. */
  newTicket(platformAppId: string): string {
    const ticket = this.#new('ticket@@@', TICKET_LIFE_MS);
    this.#platform(platformAppId).tickets.push(ticket);
    return ticket.value;
  }

  /** As if no ticket had ever been pushed. */
  dropTickets(platformAppId: string): void {
    this.#platform(platformAppId).tickets.length = 0;
  }

  /** How often it has been asked to push tickets again. */
  ticketsAskedFor(platformAppId: string): number {
    return this.#platform(platformAppId).ticketsAskedFor;
  }

  /** An account authorises the platform, for the first time or anew. Returns the code that the event carries. */
  authorize(platformAppId: string, appId: string): string {
    const { authorizers } = this.#platform(platformAppId);
    const code = this.#new('queryauthcode@@@', CODE_LIFE_MS);
    const known = authorizers.get(appId);
    const authorizer = known ?? {
      appId,
      refreshToken: '',
      withdrawn: false,
      tokens: [],
      codes: [],
      revoked: new Set(),
    };
    authorizer.withdrawn = false;
    // Authorising anew changes it.
    authorizer.refreshToken = this.#new('refreshtoken@@@', TICKET_LIFE_MS).value;
    authorizer.codes.push(code);
    authorizers.set(appId, authorizer);
    return code.value;
  }

  withdraw(platformAppId: string, appId: string): void {
    const authorizer = this.#platform(platformAppId).authorizers.get(appId);
    if (authorizer === undefined) return;
    authorizer.withdrawn = true;
    for (const { value } of authorizer.tokens) authorizer.revoked.add(value);
  }

  /** As if another system had refreshed everything: no token and no refresh token of the account holds any more. */
  rotate(platformAppId: string, appId: string): void {
    const authorizer = this.#platform(platformAppId).authorizers.get(appId);
    if (authorizer === undefined) return;
    authorizer.refreshToken = this.#new('refreshtoken@@@', TICKET_LIFE_MS).value;
    for (const token of authorizer.tokens) token.expiresAt = this.#now();
  }

  /** As if another system had fetched the platform's token. */
  rotatePlatform(platformAppId: string): void {
    for (const token of this.#platform(platformAppId).tokens) token.expiresAt = this.#now();
  }

  /** Whose token it is, and how media/get judges it; `undefined` for one that was never given out. */
  judge(token: string): { readonly appId: string; readonly errcode?: number } | undefined {
    for (const { authorizers } of this.#platforms.values()) {
      for (const { appId, tokens, revoked } of authorizers.values()) {
        const known = tokens.find(({ value }) => value === token);
        if (known === undefined) continue;
        if (revoked.has(token)) return { appId, errcode: 61003 };
        return this.#now() < known.expiresAt ? { appId } : { appId, errcode: 42001 };
      }
    }
    return undefined;
  }

  /** Answers `/cgi-bin/component/<name>`. @param token of the query. */
  answer(name: string, body: Readonly<Record<string, unknown>>, token: string): ComponentReply {
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
    const platform = this.#platforms.get(String(body['component_appid']));
    if (platform === undefined) return { errcode: 40013 };
    switch (name) {
      case 'api_start_push_ticket':
        if (body['component_secret'] !== platform.secret) return { errcode: 40125 };
        platform.ticketsAskedFor += 1;
        return { json: { errcode: 0, errmsg: 'ok' } };
      case 'api_component_token':
        return this.#componentToken(platform, body);
      default:
        if (!platform.tokens.some(({ value, expiresAt }) => value === token && this.#now() < expiresAt))
          return { errcode: token === '' ? 41001 : 40001 };
    }
    switch (name) {
      case 'api_query_auth':
        return this.#queryAuth(platform, body['authorization_code']);
      case 'api_authorizer_token': {
        const authorizer = platform.authorizers.get(String(body['authorizer_appid']));
        if (authorizer === undefined || authorizer.withdrawn) return { errcode: 61003 };
        if (authorizer.refreshToken !== body['authorizer_refresh_token']) return { errcode: 61023 };
        return { json: this.#authorizerToken(authorizer, this.rotates) };
      }
      case 'api_get_authorizer_list': {
        const [offset, count] = [Number(body['offset']), Math.min(this.longestPage, Number(body['count']))];
        const all = [...platform.authorizers.values()].filter(({ withdrawn }) => !withdrawn);
        const list = all.slice(offset, offset + count).map(({ appId, refreshToken }) => ({
          authorizer_appid: appId,
          refresh_token: refreshToken,
          auth_time: Math.floor(this.#now() / SECOND),
        }));
        return { json: { total_count: all.length, list } };
      }
      default:
        return { errcode: 40066 };
    }
  }

  #componentToken(platform: Platform, body: Readonly<Record<string, unknown>>): ComponentReply {
    if (body['component_appsecret'] !== platform.secret) return { errcode: 40125 };
    const ticket = platform.tickets.find(({ value }) => value === body['component_verify_ticket']);
    if (ticket === undefined) return { errcode: platform.tickets.length === 0 ? 61005 : 61006 };
    if (this.#now() >= ticket.expiresAt) return { errcode: 61005 };
    const token = this.#newToken(platform.tokens);
    return { json: { component_access_token: token, expires_in: this.tokenLifeMs / SECOND } };
  }

  #queryAuth(platform: Platform, code: unknown): ComponentReply {
    for (const authorizer of platform.authorizers.values()) {
      const at = authorizer.codes.findIndex(({ value }) => value === code);
      if (at === -1) continue;
      const [used] = authorizer.codes.splice(at, 1);
      if (used === undefined || this.#now() >= used.expiresAt) return { errcode: 61010 };
      const tokens = this.withoutTokens.has(authorizer.appId) ? {} : this.#authorizerToken(authorizer, false);
      const funcInfo = [{ funcscope_category: { id: 1 } }];
      return {
        json: { authorization_info: { authorizer_appid: authorizer.appId, ...tokens, func_info: funcInfo } },
      };
    }
    return { errcode: 61009 };
  }

  #authorizerToken(authorizer: Authorizer, rotates: boolean): object {
    if (rotates) authorizer.refreshToken = this.#new('refreshtoken@@@', TICKET_LIFE_MS).value;
    return {
      authorizer_access_token: this.#newToken(authorizer.tokens),
      expires_in: this.tokenLifeMs / SECOND,
      authorizer_refresh_token: authorizer.refreshToken,
    };
  }

  /** A new token; those before it live on for five minutes. */
  #newToken(tokens: Expiring[]): string {
    for (const token of tokens) token.expiresAt = Math.min(token.expiresAt, this.#now() + OVERLAP_MS);
    const fresh = this.#new(`${randomInt(50, 99)}_`, this.tokenLifeMs);
    tokens.push(fresh);
    return fresh.value;
  }

  #new(prefix: string, lifeMs: number): Expiring {
    const value = prefix + randomBytes(64).toString('base64url');
    this.issued.push(value);
    return { value, expiresAt: this.#now() + lifeMs };
  }

  #platform(appId: string): Platform {
    const platform = this.#platforms.get(appId);
    if (platform === undefined) throw new Error(`there is no platform ${appId}`);
    return platform;
  }
}
