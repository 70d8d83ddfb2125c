import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import type { RedisClient } from '../../redis/connect.ts';
import type { Lease } from '../../redis/lease.ts';
import type { Secret } from '../../secret.ts';
import { DAY } from '../../time.ts';
import type { Account } from './account.ts';
import { sealToken, unsealToken } from './sealed-token.ts';

/** An app's token as it lies in Redis, shared by the fleet. */
export interface TokenRecord {
  readonly token: Secret;
  readonly generation: string;
  /** Unix times in milliseconds. */
  readonly obtainedAt: number;
  readonly expiresAt: number;
  /** When WeChat last gave this token out, be it as a new one or as the one we had. */
  readonly confirmedAt: number;
  /** How often WeChat gave this very token out again although it had rejected it. */
  readonly rejections: number;
}

/** The calls that WeChat counts. Written before each is made, since one whose answer is lost counts as well. */
export interface CountedCalls {
  /** When this app's token was forced, within the last day. */
  readonly forcedAt: readonly number[];
  /** When /cgi-bin/token was asked because WeChat had rejected the token, within the last hour. */
  readonly replacedAt: readonly number[];
}

/** What the fleet knows of the token of an app. */
export interface TokenState {
  /** Absent when there is none that this worker can read. */
  readonly record: TokenRecord | undefined;
  /** Of the app, whatever its secret was. */
  readonly calls: CountedCalls;
}

const recordSchema = z.object({
  sealed: z.string(),
  generation: z.string(),
  obtainedAt: z.coerce.number(),
  expiresAt: z.coerce.number(),
  confirmedAt: z.coerce.number(),
  rejections: z.coerce.number(),
});

const callsSchema = z.object({ forcedAt: timesSchema(), replacedAt: timesSchema() });

function timesSchema() {
  return z
    .string()
    .default('')
    .transform((text) => text.split(',').filter(Boolean).map(Number));
}

export async function readTokenState(redis: RedisClient, key: string, account: Account): Promise<TokenState> {
  const fields: Readonly<Record<string, string>> = await redis.hgetall(key);
  return {
    record: parseRecord(fields, account),
    calls: callsSchema.parse(fields),
  };
}

function parseRecord(fields: Readonly<Record<string, string>>, account: Account): TokenRecord | undefined {
  const parsed = recordSchema.safeParse(fields);
  if (!parsed.success) return undefined;
  const { sealed, ...facts } = parsed.data;
  const token = unsealToken(sealed, account.credential.secret, account.appId);
  return token === undefined ? undefined : { token, ...facts };
}

/** Where an app's state is written: the hash, and the lease that allows it. */
export interface TokenPlace {
  readonly redis: RedisClient;
  readonly key: string;
  readonly lease: Lease;
}

/** Writes the token. Returns false, and writes nothing, when the lease has gone. */
export function writeTokenRecord(place: TokenPlace, account: Account, record: TokenRecord): Promise<boolean> {
  const fields = {
    sealed: sealToken(record.token, account.credential.secret, account.appId),
    generation: record.generation,
    obtainedAt: record.obtainedAt,
    expiresAt: record.expiresAt,
    confirmedAt: record.confirmedAt,
    rejections: record.rejections,
  };
  return write(place, fields);
}

/** Writes down calls that are about to be made. Returns false, and writes nothing, when the lease has gone. */
export function writeCountedCalls(place: TokenPlace, { forcedAt, replacedAt }: CountedCalls): Promise<boolean> {
  return write(place, { forcedAt: forcedAt.join(','), replacedAt: replacedAt.join(',') });
}

const WRITE_IF_LEASED = `
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1`;

/** Longer than a token lives, since what was forced is counted by the day. */
const KEEP_MS = DAY;

async function write(
  { redis, key, lease }: TokenPlace,
  fields: Readonly<Record<string, string | number>>,
): Promise<boolean> {
  const { key: leaseKey, owner } = lease;
  const written = await redis.eval(WRITE_IF_LEASED, 2, key, leaseKey, owner, KEEP_MS, ...Object.entries(fields).flat());
  return written === 1;
}

/** Makes a name for a new token. */
export function newGeneration(): string {
  return randomUUID();
}
