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
  /** When this app's token was forced, within the last day. */
  readonly forcedAt: readonly number[];
  /** When WeChat was asked because it had rejected the token, within the last day. */
  readonly replacedAt: readonly number[];
}

const fieldsSchema = z.object({
  sealed: z.string(),
  generation: z.string(),
  obtainedAt: z.coerce.number(),
  expiresAt: z.coerce.number(),
  confirmedAt: z.coerce.number(),
  rejections: z.coerce.number(),
  forcedAt: timesSchema(),
  replacedAt: timesSchema(),
});

function timesSchema() {
  return z
    .string()
    .default('')
    .transform((text) => text.split(',').filter(Boolean).map(Number));
}

/** Reads an app's token; `undefined` when there is none that this worker can read. */
export async function readTokenRecord(
  redis: RedisClient,
  key: string,
  account: Account,
): Promise<TokenRecord | undefined> {
  const parsed = fieldsSchema.safeParse(await redis.hgetall(key));
  if (!parsed.success) return undefined;
  const { sealed, ...facts } = parsed.data;
  const token = unsealToken(sealed, account.credential.secret, account.appId);
  return token === undefined ? undefined : { token, ...facts };
}

/** Writes the token, unless the lease has gone to somebody else meanwhile: then returns false and writes nothing. */
const WRITE_IF_LEASED = `
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1`;

export async function writeTokenRecord(
  redis: RedisClient,
  key: string,
  lease: Lease,
  account: Account,
  record: TokenRecord,
): Promise<boolean> {
  const fields = {
    sealed: sealToken(record.token, account.credential.secret, account.appId),
    generation: record.generation,
    obtainedAt: record.obtainedAt,
    expiresAt: record.expiresAt,
    confirmedAt: record.confirmedAt,
    rejections: record.rejections,
    forcedAt: record.forcedAt.join(','),
    replacedAt: record.replacedAt.join(','),
  };
  // Outlives the token, since the record also remembers what was forced within the day.
  const keepMs = DAY;
  const written = await redis.eval(
    WRITE_IF_LEASED,
    2,
    key,
    lease.key,
    lease.owner,
    keepMs,
    ...Object.entries(fields).flat(),
  );
  return written === 1;
}

/** Makes a name for a new token. */
export function newGeneration(): string {
  return randomUUID();
}
