import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import { FAILURES, type Failure, type FailureCode } from '../../failure.ts';
import type { RedisClient } from '../../redis/connect.ts';
import type { Lease } from '../../redis/lease.ts';
import type { Secret } from '../../secret.ts';
import { DAY } from '../../time.ts';
import type { FailedCall } from './failed-call.ts';
import { markOfSecret, sealToken, unsealToken } from './sealed-token.ts';
import type { TokenOwner } from './token-subject.ts';

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
  /** The failure since the last success with this worker's secret. */
  readonly failed: FailedCall | undefined;
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

const failedSchema = z.object({
  until: z.number(),
  count: z.number(),
  failure: z.object({
    // Another version may know more of them.
    code: z.string().transform((code): FailureCode => (isFailureCode(code) ? code : 'unclassified')),
    detail: z.string().optional(),
    errcode: z.number().optional(),
    errmsg: z.string().optional(),
    rid: z.string().optional(),
    httpStatus: z.number().optional(),
  }),
});

function isFailureCode(code: string): code is FailureCode {
  return Object.hasOwn(FAILURES, code);
}

export async function readTokenState(redis: RedisClient, key: string, owner: TokenOwner): Promise<TokenState> {
  const fields: Readonly<Record<string, string>> = await redis.hgetall(key);
  return {
    record: parseRecord(fields, owner),
    calls: callsSchema.parse(fields),
    failed: parseFailed(fields[failedField(owner)]),
  };
}

function parseRecord(fields: Readonly<Record<string, string>>, owner: TokenOwner): TokenRecord | undefined {
  const parsed = recordSchema.safeParse(fields);
  if (!parsed.success) return undefined;
  const { sealed, ...facts } = parsed.data;
  const token = unsealToken(sealed, owner.secret, owner.appId);
  return token === undefined ? undefined : { token, ...facts };
}

function parseFailed(text: string | undefined): FailedCall | undefined {
  if (text === undefined) return undefined;
  try {
    const parsed = failedSchema.safeParse(JSON.parse(text));
    return parsed.success ? { ...parsed.data, failure: parsed.data.failure as Failure } : undefined;
  } catch {
    return undefined;
  }
}

/** One a secret: what was said of another secret says nothing of this one. */
function failedField({ appId, secret }: TokenOwner): string {
  return `failed:${markOfSecret(secret, appId)}`;
}

/** Where an app's state is written: the hash, and the lease that allows it. */
export interface TokenPlace {
  readonly redis: RedisClient;
  readonly key: string;
  readonly lease: Lease;
}

/** Writes the token and forgets the failure before it. Returns false, and writes nothing, when the lease has gone. */
export function writeTokenRecord(place: TokenPlace, owner: TokenOwner, record: TokenRecord): Promise<boolean> {
  const fields = {
    sealed: sealToken(record.token, owner.secret, owner.appId),
    generation: record.generation,
    obtainedAt: record.obtainedAt,
    expiresAt: record.expiresAt,
    confirmedAt: record.confirmedAt,
    rejections: record.rejections,
  };
  return write(place, fields, failedField(owner));
}

/** Writes down calls that are about to be made. Returns false, and writes nothing, when the lease has gone. */
export function writeCountedCalls(place: TokenPlace, { forcedAt, replacedAt }: CountedCalls): Promise<boolean> {
  return write(place, { forcedAt: forcedAt.join(','), replacedAt: replacedAt.join(',') });
}

/** Writes the failure beside the token, which may still hold. Returns false, and writes nothing, when the lease has gone. */
export function writeFailedCall(place: TokenPlace, owner: TokenOwner, failed: FailedCall): Promise<boolean> {
  return write(place, { [failedField(owner)]: JSON.stringify(failed) });
}

const WRITE_IF_LEASED = `
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('HDEL', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1`;

/** Longer than a token lives, since what was forced is counted by the day. */
const KEEP_MS = DAY;

async function write(
  { redis, key, lease }: TokenPlace,
  fields: Readonly<Record<string, string | number>>,
  forgotten = '',
): Promise<boolean> {
  const { key: leaseKey, owner } = lease;
  const written = await redis.eval(
    WRITE_IF_LEASED,
    2,
    key,
    leaseKey,
    owner,
    KEEP_MS,
    forgotten,
    ...Object.entries(fields).flat(),
  );
  return written === 1;
}

/** Forgets a failure whose cause is known to be gone. */
export async function forgetFailedCall(redis: RedisClient, key: string, owner: TokenOwner): Promise<void> {
  await redis.hdel(key, failedField(owner));
}

/** Forgets a token, and keeps what WeChat counts. Processes that hold it in memory go on until it is rejected. */
export async function forgetToken(redis: RedisClient, key: string): Promise<void> {
  await redis.hdel(key, 'sealed');
}

/** Makes a name for a new token. */
export function newGeneration(): string {
  return randomUUID();
}
