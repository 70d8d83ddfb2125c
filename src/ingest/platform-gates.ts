import { failure } from '../failure.ts';
import type { GateReason } from '../queue/gate-rules.ts';
import type { Gates } from '../queue/gates.ts';
import { type AccountBook, isServedBy } from '../weixin/credentials/account-book.ts';
import type { Authorizations } from '../weixin/credentials/authorizations.ts';
import type { ComponentEventsParts } from '../weixin/credentials/component-events.ts';

/** What an account can have put right by authorising the platform, or by changing what it allows. */
const CURED_BY_AUTHORIZATION: ReadonlySet<GateReason> = new Set<GateReason>([
  'authorization-withdrawn',
  'api-unauthorized',
  'app-not-configured',
]);

/** What the events of a platform do to the gates of its accounts. */
export function platformGates(
  gates: Gates,
  authorizations: Pick<Authorizations, 'read'>,
  accounts: Pick<AccountBook, 'find' | 'list' | 'refresh'>,
  onOpened: (appId: string) => void,
): Pick<ComponentEventsParts, 'onTicket' | 'onAuthorized' | 'onWithdrawn'> {
  async function openWhere(isCured: (appId: string, reason: GateReason) => boolean): Promise<void> {
    for (const { appId, reason } of await gates.list()) {
      if (isCured(appId, reason) && (await gates.open(appId))) onOpened(appId);
    }
  }

  return {
    onTicket: async (component) => {
      const served = new Set(accounts.list().flatMap((one) => (isServedBy(one, component) ? one.appId : [])));
      await openWhere((appId, reason) => reason === 'component-ticket-missing' && served.has(appId));
    },
    onAuthorized: (_component, appId) =>
      openWhere((closed, reason) => closed === appId && CURED_BY_AUTHORIZATION.has(reason)),
    onWithdrawn: async (component, appId) => {
      const reason = 'authorization-withdrawn';
      await gates.close(appId, reason, failure(reason, { detail: `it has withdrawn it from ${component.appId}` }));
      // It may have authorised this or another platform meanwhile, which another process was told.
      const [known] = await Promise.all([authorizations.read(component, appId), accounts.refresh()]);
      const account = accounts.find(appId);
      const isServedElsewhere = account !== undefined && !isServedBy(account, component);
      if ((known?.status === 'authorized' || isServedElsewhere) && (await gates.open(appId))) onOpened(appId);
    },
  };
}
