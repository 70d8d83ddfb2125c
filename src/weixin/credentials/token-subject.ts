import type { Result } from '../../failure.ts';
import type { Secret } from '../../secret.ts';
import type { TokenAnswer } from './token-endpoint.ts';

/** Tokens that the fleet fetches itself and shares. */
export type SharedTokenKind = 'stable_token' | 'token' | 'authorizer' | 'component';

/** Those of which every call issues a new one. A stable_token is the same until its last minutes. */
export function issuesAnew(kind: SharedTokenKind): boolean {
  return kind !== 'stable_token';
}

/** Whose token it is, and what it is sealed with in Redis. */
export interface TokenOwner {
  /** Of the app, or of the platform. */
  readonly appId: string;
  readonly secret: Secret;
}

/** How a token is asked for. */
export interface TokenRequest {
  /** `stable_token` only: retire the current token at once. */
  readonly force: boolean;
  /** 0 where the endpoint is known to fail: then it is asked once. */
  readonly blipRetries?: 0;
}

/** An owner whose token can be fetched. */
export interface TokenSubject extends TokenOwner {
  readonly kind: SharedTokenKind;
  /**
   * Asks WeChat. Called by one process at a time, the holder of the lease on this token.
   *
   * @throws the signal's reason when it aborts.
   */
  request(how: TokenRequest, signal: AbortSignal): Promise<Result<TokenAnswer>>;
}
