import type { Account, Component } from './account.ts';
import type { Authorization, Authorizations } from './authorizations.ts';

/** The apps that this deployment has a credential for: those of its configuration, and those that have authorised a platform of it. */
export interface AccountBook {
  find(appId: string): Account | undefined;
  has(appId: string): boolean;
  list(): readonly Account[];
  /**
   * Looks which apps have authorised a platform since. Returns those that have moved from one to another. Rejects when
   * Redis does; what was known stays.
   */
  refresh(): Promise<readonly string[]>;
}

type Known = Pick<Authorization, 'status' | 'at'> & { readonly component: Component };

export function createAccountBook(
  configured: readonly Account[],
  components: readonly Component[],
  authorizations: Pick<Authorizations, 'list' | 'version'>,
): AccountBook {
  const own = new Map(configured.map((account) => [account.appId, account]));
  let all: ReadonlyMap<string, Account> = own;
  let seen: string | undefined;

  /** An app that has authorised several platforms, one after the other, is served by the one that it has not left. */
  async function readBook(): Promise<Map<string, Known>> {
    const best = new Map<string, Known>();
    for (const component of components) {
      for (const [appId, facts] of await authorizations.list(component.appId)) {
        const before = best.get(appId);
        const known = { ...facts, component };
        if (before === undefined || isBetter(known, before)) best.set(appId, known);
      }
    }
    return best;
  }

  return {
    find: (appId) => all.get(appId),
    has: (appId) => all.has(appId),
    list: () => [...all.values()],
    refresh: async () => {
      if (components.length === 0) return [];
      // Before the book is read: what changes meanwhile is read the next time.
      const versions = await Promise.all(components.map(({ appId }) => authorizations.version(appId)));
      if (seen === versions.join()) return [];
      const moved: string[] = [];
      const authorized = [...(await readBook())].map(([appId, { component }]): [string, Account] => {
        const before = all.get(appId);
        // The same object as before, if nothing has changed: whoever holds it need not notice.
        const isSame = before !== undefined && isServedBy(before, component);
        if (before !== undefined && !isSame) moved.push(appId);
        return [appId, isSame ? before : { appId, credential: { type: 'authorizer', component } }];
      });
      // What is configured comes last, so that it counts.
      all = new Map([...authorized, ...own]);
      seen = versions.join();
      return moved.filter((appId) => !own.has(appId));
    },
  };
}

/** True of an app whose tokens come by way of this platform. */
export function isServedBy({ credential }: Account, { appId }: Component): boolean {
  return credential.type === 'authorizer' && credential.component.appId === appId;
}

function isBetter(one: Known, other: Known): boolean {
  return one.status === other.status ? one.at > other.at : one.status === 'authorized';
}
