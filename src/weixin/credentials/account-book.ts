import type { Account, Component } from './account.ts';
import type { Authorizations } from './authorizations.ts';

/** The apps that this deployment has a credential for: those of its configuration, and those that have authorised a platform of it. */
export interface AccountBook {
  find(appId: string): Account | undefined;
  has(appId: string): boolean;
  list(): readonly Account[];
  /** Looks which apps have authorised a platform since. Rejects when Redis does; what was known stays. */
  refresh(): Promise<void>;
}

export function createAccountBook(
  configured: readonly Account[],
  components: readonly Component[],
  authorizations: Authorizations,
): AccountBook {
  const own = new Map(configured.map((account) => [account.appId, account]));
  let all: ReadonlyMap<string, Account> = own;
  return {
    find: (appId) => all.get(appId),
    has: (appId) => all.has(appId),
    list: () => [...all.values()],
    refresh: async () => {
      if (components.length === 0) return;
      const authorized = await Promise.all(
        components.map(async (component) => {
          const appIds = await authorizations.appIds(component.appId);
          return appIds.map((appId): [string, Account] => [
            appId,
            // The same object as before: whoever holds it need not notice.
            all.get(appId) ?? { appId, credential: { type: 'authorizer', component } },
          ]);
        }),
      );
      // What is configured comes last, so that it counts.
      all = new Map([...authorized.flat(), ...own]);
    },
  };
}
