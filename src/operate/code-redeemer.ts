import { FAILURES } from '../failure.ts';
import type { Logger } from '../log.ts';
import type { Component } from '../weixin/credentials/account.ts';
import type { TokenSources } from '../weixin/credentials/token-source.ts';

/** Redeems the codes of new authorisations, which expire within the hour: at once, and again with each beat. */
export interface CodeRedeemer {
  /** Returns at once; one round at a time. What can't be redeemed is said, and left to the next round. */
  redeem(): void;
  /** Resolves once no round is under way. */
  settled(): Promise<void>;
}

export function createCodeRedeemer(
  tokens: Pick<TokenSources, 'redeemCodes'>,
  components: readonly Component[],
  log: Logger,
  stop: AbortSignal,
): CodeRedeemer {
  let round: Promise<void> | undefined;
  /** A code came while a round was under way. */
  let again = false;

  async function redeemOnce(): Promise<void> {
    try {
      for (const [appId, failure] of await tokens.redeemCodes(components, stop))
        log.warn({ appId, failure, hint: FAILURES[failure.code].hint }, 'an authorization code waits');
    } catch (error) {
      if (!stop.aborted) log.warn({ err: error }, 'authorization codes can not be looked for');
    }
  }

  function redeem(): void {
    if (components.length === 0 || stop.aborted) return;
    if (round !== undefined) {
      again = true;
      return;
    }
    again = false;
    round = redeemOnce().finally(() => {
      round = undefined;
      if (again) redeem();
    });
  }

  return { redeem, settled: async () => round };
}
