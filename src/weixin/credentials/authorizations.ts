import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import type { RedisClient } from '../../redis/connect.ts';
import type { RedisKeys } from '../../redis/keys.ts';
import type { Secret } from '../../secret.ts';
import type { Component } from './account.ts';
import { markOfSecret, sealToken, unsealToken } from './sealed-token.ts';

/** What is known of an app's authorisation of a platform. */
export interface Authorization {
  readonly status: 'authorized' | 'withdrawn';
  /** When WeChat made the event that told so, as a Unix time in milliseconds; 0 where none has. */
  readonly at: number;
  /** Valid until the authorisation is withdrawn, or the next one is given out. */
  readonly refreshToken?: Secret;
  /** Not redeemed yet: it stands for a refresh token, is good for one use, and expires within the hour. */
  readonly code?: Secret;
}

/**
 * The apps that have authorised each platform, shared by the fleet. Refresh tokens and codes are sealed with the
 * platform's secret.
 *
 * Unlike the rest of what lies in Redis this has no second home, but it can be had again: WeChat lists the refresh tokens
 * of a platform.
 */
export interface Authorizations {
  read(component: Component, appId: string): Promise<Authorization | undefined>;
  /** Takes note of an event. Returns false, and changes nothing, when it is older than what is known, or the same. */
  authorize(component: Component, appId: string, code: Secret, at: number): Promise<boolean>;
  withdraw(component: Component, appId: string, at: number): Promise<boolean>;
  /** Takes note that an app has authorised the platform, without an event that says so. */
  see(component: Component, appId: string): Promise<void>;
  /**
   * Keeps a refresh token that has just been given out in place of what was used for it, which shows as well that the
   * authorisation holds. Something newer than `used` is left alone.
   */
  keep(component: Component, appId: string, used: Authorization | undefined, refreshToken: Secret): Promise<void>;
  /** Forgets a code that can't be redeemed. */
  dropCode(component: Component, appId: string, used: Authorization): Promise<void>;
  /** Who has authorised the platform, also those that have withdrawn it: their jobs must end somehow. */
  list(componentAppId: string): Promise<ReadonlyMap<string, Pick<Authorization, 'status' | 'at'>>>;
  /** Another one whenever `list` would tell something else. */
  version(componentAppId: string): Promise<string>;
  /** The apps whose code waits to be redeemed. */
  pending(componentAppId: string): Promise<string[]>;
}

const recordSchema = z.object({
  status: z.enum(['authorized', 'withdrawn']),
  at: z.number(),
  /** Of the last withdrawal, which may come again. */
  withdrawnAt: z.number().optional(),
  refresh: z.string().optional(),
  code: z.string().optional(),
  /** Tells the last code, redeemed or not, from others: the same push may come again. */
  codeMark: z.string().optional(),
});

type Stored = z.output<typeof recordSchema>;

const REPLACE_IF_SAME = `
local known = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if known ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call(ARGV[4], KEYS[2], ARGV[1])
if ARGV[5] ~= '' then redis.call('SET', KEYS[3], ARGV[5]) end
return 1`;

/** Somebody else changes the record of an app once in months: this often in a row never. */
const MAX_TRIES = 20;

export function createAuthorizations(redis: RedisClient, keys: RedisKeys): Authorizations {
  /** Changes a record, on top of whatever others have made of it. Returns false when `change` wants nothing changed. */
  async function update(
    component: Component,
    appId: string,
    change: (known: Stored | undefined) => Stored | undefined,
  ): Promise<boolean> {
    const key = keys.authorizers(component.appId);
    const places = [key, keys.pendingCodes(component.appId), keys.authorizersVersion(component.appId)];
    for (let tries = 0; tries < MAX_TRIES; tries += 1) {
      const text = (await redis.hget(key, appId)) ?? '';
      const known = parse(text);
      const next = change(known);
      if (next === undefined) return false;
      const pending = next.code === undefined ? 'SREM' : 'SADD';
      const version = known?.status === next.status && known.at === next.at ? '' : randomUUID();
      const json = JSON.stringify(next);
      const done = await redis.eval(REPLACE_IF_SAME, places.length, ...places, appId, text, json, pending, version);
      if (done === 1) return true;
    }
    throw new Error(`the authorisation of ${appId} is changed too often`);
  }

  const seal = ({ secret }: Component, appId: string, value: Secret): string => sealToken(value, secret, appId);
  const opened = ({ secret }: Component, appId: string, sealed: string | undefined): Secret | undefined =>
    sealed === undefined ? undefined : unsealToken(sealed, secret, appId);

  /** True where what is known is still what was used. */
  function isUsed(
    component: Component,
    appId: string,
    known: Stored | undefined,
    used: Authorization | undefined,
  ): boolean {
    // What only says that the app is there came meanwhile, and holds nothing that could be written over.
    const isEmpty = known === undefined || (known.at === 0 && known.refresh === undefined && known.code === undefined);
    if (known === undefined || used === undefined) return isEmpty && used === undefined;
    const same = (sealed: string | undefined, secret: Secret | undefined): boolean =>
      opened(component, appId, sealed)?.reveal() === secret?.reveal();
    return known.at === used.at && same(known.refresh, used.refreshToken) && same(known.code, used.code);
  }

  return {
    read: async (component, appId) => {
      const known = parse((await redis.hget(keys.authorizers(component.appId), appId)) ?? '');
      if (known === undefined) return undefined;
      const refreshToken = opened(component, appId, known.refresh);
      const code = opened(component, appId, known.code);
      return {
        status: known.status,
        at: known.at,
        ...(refreshToken === undefined ? {} : { refreshToken }),
        ...(code === undefined ? {} : { code }),
      };
    },

    authorize: (component, appId, code, at) => {
      const codeMark = markOfSecret(code, appId);
      return update(component, appId, (known) => {
        if (known !== undefined && (known.at > at || known.codeMark === codeMark)) return undefined;
        return { ...known, status: 'authorized', at, code: seal(component, appId, code), codeMark };
      });
    },

    withdraw: (component, appId, at) =>
      update(component, appId, (known) => {
        if (known !== undefined && (known.at > at || known.withdrawnAt === at)) return undefined;
        const { code: _useless, ...rest } = known ?? {};
        return { ...rest, status: 'withdrawn', at, withdrawnAt: at };
      }),

    see: async (component, appId) => {
      await update(component, appId, (known) => (known === undefined ? { status: 'authorized', at: 0 } : undefined));
    },

    keep: async (component, appId, used, refreshToken) => {
      await update(component, appId, (known) => {
        if (!isUsed(component, appId, known, used)) return undefined;
        const { code: _redeemed, ...rest } = known ?? { at: 0 };
        const refresh = seal(component, appId, refreshToken);
        return { ...rest, status: 'authorized', refresh };
      });
    },

    dropCode: async (component, appId, used) => {
      await update(component, appId, (known) => {
        if (known === undefined || !isUsed(component, appId, known, used)) return undefined;
        const { code: _useless, ...rest } = known;
        return rest;
      });
    },

    list: async (componentAppId) => {
      const records = await redis.hgetall(keys.authorizers(componentAppId));
      return new Map(
        Object.entries(records).flatMap(([appId, text]): [string, Pick<Authorization, 'status' | 'at'>][] => {
          const known = parse(text);
          return known === undefined ? [] : [[appId, { status: known.status, at: known.at }]];
        }),
      );
    },

    version: async (componentAppId) => (await redis.get(keys.authorizersVersion(componentAppId))) ?? '',

    pending: (componentAppId) => redis.smembers(keys.pendingCodes(componentAppId)),
  };
}

function parse(text: string): Stored | undefined {
  try {
    return recordSchema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}
