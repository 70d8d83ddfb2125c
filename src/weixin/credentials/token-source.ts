import { type Failure, failure, type Result } from '../../failure.ts';
import type { Account, OwnAccount } from './account.ts';
import type { ApiEndpoint } from './api-call.ts';
import type { IssuedToken, TokenSource } from './issued-token.ts';
import { createSharedTokens, type SharedTokensOptions } from './shared-tokens.ts';
import { requestToken } from './token-endpoint.ts';
import type { TokenSubject } from './token-subject.ts';

export interface TokenSourceOptions extends SharedTokensOptions {
  readonly endpoint: ApiEndpoint;
}

/** The tokens of every kind of credential. */
export function createTokenSource(options: TokenSourceOptions): TokenSource {
  const { endpoint } = options;
  const shared = createSharedTokens(options);

  function subjectOf({ appId, credential }: Account): TokenSubject | undefined {
    switch (credential.type) {
      case 'stable_token':
      case 'token':
        return ownSubject({ appId, credential }, endpoint);
      case 'authorizer':
      case 'external':
      case 'cloud':
        return undefined;
      default:
        return credential satisfies never;
    }
  }

  return {
    current: async (account, signal): Promise<Result<IssuedToken>> => {
      const subject = subjectOf(account);
      return subject === undefined
        ? { ok: false, failure: notConfigured(account.appId) }
        : shared.current(subject, signal);
    },
    reject: async (account, generation, signal) => {
      const subject = subjectOf(account);
      return subject === undefined ? notConfigured(account.appId) : shared.reject(subject, generation, signal);
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
