import type { RedisClient } from './connect.ts';

/** What a Redis must be so that what it has accepted is not lost. */
export interface RedisFacts {
  readonly version: string;
  /** `noeviction` is the only one that drops nothing. */
  readonly evictionPolicy: string;
  /** 0 means no limit. */
  readonly maxMemoryBytes: number;
  readonly usedMemoryBytes: number;
  readonly aofEnabled: boolean;
  /** `always`, `everysec` or `no`; `undefined` where we may not ask. */
  readonly appendFsync: string | undefined;
}

/** Asks Redis about itself by INFO, which needs no right to read its configuration, and for one setting more if it may. */
export async function readRedisFacts(redis: RedisClient): Promise<RedisFacts> {
  const fields = new Map<string, string>();
  for (const section of ['server', 'memory', 'persistence']) {
    for (const line of (await redis.info(section)).split('\r\n')) {
      const colon = line.indexOf(':');
      if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 1));
    }
  }
  return {
    version: fields.get('valkey_version') ?? fields.get('redis_version') ?? 'unknown',
    evictionPolicy: fields.get('maxmemory_policy') ?? 'unknown',
    maxMemoryBytes: Number(fields.get('maxmemory') ?? 0),
    usedMemoryBytes: Number(fields.get('used_memory') ?? 0),
    aofEnabled: fields.get('aof_enabled') === '1',
    appendFsync: await appendFsync(redis),
  };
}

/** INFO does not tell it, and a managed Redis has no CONFIG. */
async function appendFsync(redis: RedisClient): Promise<string | undefined> {
  const [, value] = (await redis.config('GET', 'appendfsync').catch(() => [])) as string[];
  return value;
}

/** How safe what it has accepted is, in words. */
export function describeDurability({ evictionPolicy, aofEnabled, appendFsync: sync }: RedisFacts): string {
  const lost: Readonly<Record<string, string>> = {
    always: 'nothing is lost at a power cut',
    everysec: 'the last second may be lost at a power cut',
    no: 'what the system has not written yet is lost at a power cut',
  };
  const aof = aofEnabled ? 'AOF on' : 'AOF off';
  if (!aofEnabled || sync === undefined) return `${evictionPolicy}, ${aof}`;
  return `${evictionPolicy}, ${aof}, appendfsync ${sync}${lost[sync] === undefined ? '' : ` (${lost[sync]})`}`;
}

/** True when it takes no media, and workers can't note what they have done. */
export function isFull({ maxMemoryBytes, usedMemoryBytes }: RedisFacts): boolean {
  return maxMemoryBytes > 0 && usedMemoryBytes >= maxMemoryBytes;
}

/** What is wrong with a Redis, each with what to do about it. */
export function redisMistakes(facts: RedisFacts): string[] {
  const { evictionPolicy, aofEnabled, version } = facts;
  const mistakes: string[] = [];
  if (evictionPolicy !== 'noeviction') {
    mistakes.push(
      `Redis drops keys when it is full (maxmemory-policy ${evictionPolicy}): set maxmemory-policy to noeviction`,
    );
  }
  if (!aofEnabled) {
    mistakes.push('Redis forgets accepted media when it stops (appendonly no): set appendonly to yes');
  }
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major < 6 || (major === 6 && minor < 2)) mistakes.push(`Redis ${version} is too old: 6.2 or later is needed`);
  return mistakes;
}
