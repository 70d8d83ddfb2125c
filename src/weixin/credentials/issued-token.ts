import type { Failure, Result } from '../../failure.ts';
import type { Secret } from '../../secret.ts';
import type { Account, Credential } from './account.ts';

/** An access_token as the whole fleet uses it. */
export interface IssuedToken {
  /** Empty where none is sent: the sidecar of WeChat Cloud Run adds its own. */
  readonly token: Secret;
  /** Names this token among all that the app has had. A rejection must say which one was rejected. */
  readonly generation: string;
}

/**
 * One access_token per app for the whole fleet.
 *
 * Callers may rely on this: `current` gives a token that WeChat said is valid; a rejection of a token that is no longer
 * the current one costs nothing; a storm of rejections of the current one costs one call to WeChat.
 */
export interface TokenSource {
  /** @throws the signal's reason when it aborts. */
  current(account: Account, signal: AbortSignal): Promise<Result<IssuedToken>>;
  /**
   * Reports that WeChat rejected the token of this generation. Returns the failure to fetch another, if there was one.
   *
   * @throws the signal's reason when it aborts.
   */
  reject(account: Account, generation: string, signal: AbortSignal): Promise<Failure | undefined>;
}

/** A call to a token endpoint, for metrics and logs. */
export interface TokenRefresh {
  /** Of the app, or of the platform. */
  readonly appId: string;
  readonly kind: Credential['type'] | 'component';
  readonly forced: boolean;
  /** `same` where WeChat gave the token that we had. */
  readonly result: 'issued' | 'same' | 'failed';
  readonly failure?: Failure;
}
