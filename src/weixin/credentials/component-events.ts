import type { RedisClient } from '../../redis/connect.ts';
import type { RedisKeys } from '../../redis/keys.ts';
import { Secret } from '../../secret.ts';
import type { Component } from './account.ts';
import { type AccountBook, isServedBy } from './account-book.ts';
import type { Authorizations } from './authorizations.ts';
import type { ComponentTickets } from './component-tickets.ts';
import { forgetFailedCall, forgetToken } from './token-record.ts';

/**
 * What WeChat pushes to a third-party platform about itself and about the apps that authorise it.
 *
 * Each call resolves once the event is kept in Redis, sealed where it is a secret, and rejects when Redis does not take
 * it: then the push must not be answered with `success`, so that it comes again. Repeating a call is harmless, and an
 * event that is older than what is known changes nothing. A component that is not configured is ignored.
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

export interface ComponentEventsParts {
  readonly redis: RedisClient;
  readonly keys: RedisKeys;
  readonly components: readonly Component[];
  readonly tickets: ComponentTickets;
  readonly authorizations: Authorizations;
  /** An app that is configured with a credential of its own is none of a platform's, whatever it has authorised. */
  readonly accounts: Pick<AccountBook, 'find' | 'refresh'>;
  /** A ticket has come. */
  readonly onTicket: (component: Component) => Promise<void>;
  readonly onAuthorized: (component: Component, appId: string) => Promise<void>;
  readonly onWithdrawn: (component: Component, appId: string) => Promise<void>;
}

/** Each hook runs also when the event is repeated, since whoever took it first may have died before it. */
export function createComponentEvents(parts: ComponentEventsParts): ComponentEvents {
  const { redis, keys, tickets, authorizations, accounts, onTicket, onAuthorized, onWithdrawn } = parts;
  const components = new Map(parts.components.map((component) => [component.appId, component]));

  async function withComponent(appId: string, work: (component: Component) => Promise<void>): Promise<void> {
    const component = components.get(appId);
    if (component !== undefined) await work(component);
  }

  /** An app with a credential of its own, or one of another kind, has nothing to do with platforms. */
  function mayBeServed(appId: string): boolean {
    const account = accounts.find(appId);
    return account === undefined || account.credential.type === 'authorizer';
  }

  /** And one that another platform serves has left this one already. */
  function isServed(component: Component, appId: string): boolean {
    const account = accounts.find(appId);
    return account === undefined || isServedBy(account, component);
  }

  /** What the app had before is of another authorisation. */
  const forget = (appId: string): Promise<void> => forgetToken(redis, keys.token(appId));

  return {
    ticket: (componentAppId, ticket, createdAt) =>
      withComponent(componentAppId, async (component) => {
        await tickets.keep(component, new Secret(ticket), createdAt);
        await forgetFailedCall(redis, keys.token(component.appId), component);
        await onTicket(component);
      }),

    authorized: (componentAppId, appId, code, createdAt) =>
      withComponent(componentAppId, async (component) => {
        const isNews = await authorizations.authorize(component, appId, new Secret(code), createdAt);
        const known = isNews ? undefined : await authorizations.read(component, appId);
        // Older than a withdrawal: it says nothing any more.
        if (known?.status === 'withdrawn' || !mayBeServed(appId)) return;
        if (isNews) {
          await forget(appId);
          await forgetFailedCall(redis, keys.token(appId), { appId, secret: component.secret });
        }
        await onAuthorized(component, appId);
      }),

    withdrawn: (componentAppId, appId, createdAt) =>
      withComponent(componentAppId, async (component) => {
        const isNews = await authorizations.withdraw(component, appId, createdAt);
        const known = isNews ? undefined : await authorizations.read(component, appId);
        // Another process may have been told that another platform serves it.
        await accounts.refresh();
        if (known?.status === 'authorized' || !isServed(component, appId)) return;
        if (isNews) await forget(appId);
        await onWithdrawn(component, appId);
      }),

    seen: (componentAppId, appId) => withComponent(componentAppId, (component) => authorizations.see(component, appId)),
  };
}
