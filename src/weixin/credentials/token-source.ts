import { type Failure, failure, type Result } from '../../failure.ts';
import type { Account, Component, OwnAccount } from './account.ts';
import type { ApiEndpoint } from './api-call.ts';
import { createAuthorizations } from './authorizations.ts';
import { createAuthorizerTokens } from './authorizer-tokens.ts';
import { cloudToken } from './cloud-token.ts';
import { createComponentApi } from './component-api.ts';
import { createComponentTickets } from './component-tickets.ts';
import { createExternalTokens } from './external-tokens.ts';
import type { IssuedToken, TokenSource } from './issued-token.ts';
import { createSharedTokens, type SharedTokensOptions } from './shared-tokens.ts';
import { requestToken } from './token-endpoint.ts';
import type { TokenSubject } from './token-subject.ts';

export interface TokenSourceOptions extends SharedTokensOptions {
  readonly endpoint: ApiEndpoint;
}

interface AppTokens {
  current(signal: AbortSignal): Promise<Result<IssuedToken>>;
  reject(generation: string, signal: AbortSignal): Promise<Failure | undefined>;
}

/** The tokens of every kind of credential. */
export interface TokenSources extends TokenSource {
  /**
   * Redeems the codes of new authorisations, which expire within the hour. Returns the failures by app. To be called now
   * and then by any process: one at a time does it.
   *
   * @throws the signal's reason when it aborts.
   */
  redeemCodes(components: readonly Component[], signal: AbortSignal): Promise<ReadonlyMap<string, Failure>>;
}

export function createTokenSource(options: TokenSourceOptions): TokenSources {
  const { redis, keys, now, endpoint } = options;
  const shared = createSharedTokens(options);
  const authorizations = createAuthorizations(redis, keys);
  const tickets = createComponentTickets(redis, keys, now);
  const api = createComponentApi(endpoint);
  const authorizers = createAuthorizerTokens({ redis, keys, shared, api, tickets, authorizations, now });
  const external = createExternalTokens({ ...options, http: endpoint.http });

  function tokensOf({ appId, credential }: Account): AppTokens {
    switch (credential.type) {
      case 'stable_token':
      case 'token':
        return fetched(ownSubject({ appId, credential }, endpoint));
      case 'authorizer':
        return fetched(authorizers.subject({ appId, credential }));
      case 'external': {
        const account = { appId, credential };
        return {
          current: (signal) => external.current(account, signal),
          reject: (generation, signal) => external.reject(account, generation, signal),
        };
      }
      case 'cloud':
        // Read anew at each use, and renewed by WeChat alone.
        return { current: (signal) => cloudToken(credential, signal), reject: async () => undefined };
      default:
        return credential satisfies never;
    }
  }

  /** Those that the fleet fetches itself. */
  function fetched(subject: TokenSubject): AppTokens {
    return {
      current: (signal) => shared.current(subject, signal),
      reject: (generation, signal) => shared.reject(subject, generation, signal),
    };
  }

  return {
    current: (account, signal) => tokensOf(account).current(signal),
    reject: (account, generation, signal) => tokensOf(account).reject(generation, signal),
    redeemCodes: async (components, signal) => {
      const failures = new Map<string, Failure>();
      for (const component of components) {
        for (const appId of await authorizations.pending(component.appId)) {
          const credential = { type: 'authorizer', component } as const;
          const trouble = await authorizers.redeem({ appId, credential }, signal);
          if (trouble !== undefined) failures.set(appId, trouble);
        }
      }
      return failures;
    },
  };
}

/** An app that asks for its token by its own secret. */
function ownSubject(account: OwnAccount, endpoint: ApiEndpoint): TokenSubject {
  const { appId, credential } = account;
  return {
    appId,
    kind: credential.type,
    secret: credential.secret,
    request: ({ force, ...once }, signal) => requestToken(account, force, { ...endpoint, ...once }, signal),
  };
}

/** The failure of a job whose app has no credential here. */
export function notConfigured(appId: string): Failure {
  return failure('app-not-configured', { detail: appId });
}
