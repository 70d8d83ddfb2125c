/**
 * What WeChat pushes to a third-party platform about itself and about the apps that authorise it.
 *
 * Each call resolves once the event is kept in Redis, sealed where it is a secret, and rejects when Redis does not take
 * it: then the push must not be answered with `success`, so that it comes again. Repeating a call is harmless, and an
 * event that is older than what is known changes nothing.
 */
export interface ComponentEvents {
  /** A component_verify_ticket, which comes about every ten minutes and is valid for twelve hours. */
  ticket(componentAppId: string, ticket: string, createdAt: number): Promise<void>;
  /** `authorized` and `updateauthorized`: the code is redeemed for a refresh token, soon and by one process. */
  authorized(componentAppId: string, appId: string, authorizationCode: string, createdAt: number): Promise<void>;
  /** `unauthorized`: the app's gate closes. */
  withdrawn(componentAppId: string, appId: string, createdAt: number): Promise<void>;
  /** A message of an app came by this platform, so that it has authorised it although no event said so. */
  seen(componentAppId: string, appId: string): Promise<void>;
}
