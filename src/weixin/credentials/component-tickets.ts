import type { RedisClient } from '../../redis/connect.ts';
import type { RedisKeys } from '../../redis/keys.ts';
import type { Secret } from '../../secret.ts';
import { type Clock, HOUR, MINUTE, SECOND } from '../../time.ts';
import type { Component } from './account.ts';
import { sealToken, unsealToken } from './sealed-token.ts';

/**
 * A component_verify_ticket is valid for twelve hours, and a new one comes every ten minutes.
 *
 * @see https://developers.weixin.qq.com/doc/oplatform/Third-party_Platforms/2.0/api/Before_Develop/component_verify_ticket.html
 */
const TICKET_LIFE_MS = 12 * HOUR;
/** Tickets come by themselves; asking for them more often brings none sooner. */
const RESTART_PAUSE_MS = 10 * MINUTE;
/** Until it is known that WeChat was asked. */
const RESTART_LEASE_MS = 30 * SECOND;

/** The latest verify ticket of each platform, shared by the fleet and sealed with the platform's secret. */
export interface ComponentTickets {
  /** Keeps a ticket unless a newer one is known, or it is too old to be of use. */
  keep(component: Component, ticket: Secret, createdAt: number): Promise<void>;
  /** Returns the ticket; `undefined` when there is none that is still valid. */
  read(component: Component): Promise<Secret | undefined>;
  /** When the ticket that is known was made; for status. */
  createdAt(componentAppId: string): Promise<number | undefined>;
  /** Returns true for the one process that may ask WeChat now to push tickets again. */
  mayAskForPush(componentAppId: string): Promise<boolean>;
  /** Takes note that WeChat was asked. */
  pushAskedFor(componentAppId: string): Promise<void>;
}

const KEEP_IF_NEWER = `
local known = redis.call('HGET', KEYS[1], 'createdAt')
if known and tonumber(known) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'createdAt', ARGV[1], 'sealed', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1`;

export function createComponentTickets(redis: RedisClient, keys: RedisKeys, now: Clock): ComponentTickets {
  return {
    keep: async ({ appId, secret }, ticket, createdAt) => {
      const lifeMs = createdAt + TICKET_LIFE_MS - now();
      if (lifeMs <= 0) return;
      const sealed = sealToken(ticket, secret, appId);
      await redis.eval(KEEP_IF_NEWER, 1, keys.componentTicket(appId), createdAt, sealed, Math.ceil(lifeMs));
    },
    read: async ({ appId, secret }) => {
      const sealed = await redis.hget(keys.componentTicket(appId), 'sealed');
      return sealed === null ? undefined : unsealToken(sealed, secret, appId);
    },
    createdAt: async (componentAppId) => {
      const createdAt = await redis.hget(keys.componentTicket(componentAppId), 'createdAt');
      return createdAt === null ? undefined : Number(createdAt);
    },
    mayAskForPush: async (componentAppId) =>
      (await redis.set(keys.ticketRestart(componentAppId), '1', 'PX', RESTART_LEASE_MS, 'NX')) === 'OK',
    pushAskedFor: async (componentAppId) => {
      await redis.set(keys.ticketRestart(componentAppId), '1', 'PX', RESTART_PAUSE_MS);
    },
  };
}
