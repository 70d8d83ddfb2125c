import { setTimeout as sleep } from 'node:timers/promises';
import type { RedisClient } from './connect.ts';
import { mastersOf } from './scan.ts';

/**
 * What has become of what Redis keeps on its disk.
 *
 * - `rewritten`: the files hold only what Redis holds now.
 * - `none`: it keeps none.
 * - `refused`: we may not ask for it; the files hold what was removed until Redis writes them anew by itself.
 * - `pending`: it goes on, longer than was waited for.
 */
export type RewrittenFiles = 'rewritten' | 'none' | 'refused' | 'pending';

const LOOK_EVERY_MS = 200;

/** Asks Redis to write its append-only file and its snapshot anew, where it has them, and waits until it has. */
export async function rewriteFiles(redis: RedisClient, timeoutMs: number): Promise<RewrittenFiles> {
  const each: RewrittenFiles[] = [];
  for (const node of mastersOf(redis)) {
    const facts = async (): Promise<Map<string, string>> => fieldsOf(await node.info('persistence'));
    const aof = (await facts()).get('aof_enabled') === '1';
    const [, rules] = (await node.config('GET', 'save').catch(() => [])) as string[];
    // Where we may not read the rule: as if there were one.
    const rdb = rules !== '';
    if (!aof && !rdb) {
      each.push('none');
      continue;
    }
    try {
      // One after the other: Redis has one child at a time.
      // One that has begun earlier holds what was there then.
      const isFree = async (): Promise<boolean> => {
        const now = await facts();
        return now.get('aof_rewrite_in_progress') === '0' && now.get('rdb_bgsave_in_progress') === '0';
      };
      await until(isFree, timeoutMs);
      if (aof) {
        await node.bgrewriteaof();
        if (!(await until(async () => isIdle(await facts(), 'aof'), timeoutMs))) each.push('pending');
      }
      if (rdb) {
        await node.call('BGSAVE', 'SCHEDULE');
        if (!(await until(async () => isIdle(await facts(), 'rdb'), timeoutMs))) each.push('pending');
      }
      each.push('rewritten');
    } catch (error) {
      if (!(error instanceof Error && /^(NOPERM|ERR)/.test(error.message))) throw error;
      each.push('refused');
    }
  }
  return (['refused', 'pending', 'rewritten'] as const).find((one) => each.includes(one)) ?? 'none';
}

function isIdle(facts: ReadonlyMap<string, string>, what: 'aof' | 'rdb'): boolean {
  return what === 'aof'
    ? facts.get('aof_rewrite_in_progress') === '0' &&
        facts.get('aof_rewrite_scheduled') === '0' &&
        facts.get('aof_last_bgrewrite_status') === 'ok'
    : facts.get('rdb_bgsave_in_progress') === '0' && facts.get('rdb_last_bgsave_status') === 'ok';
}

async function until(look: () => Promise<boolean>, timeoutMs: number): Promise<boolean> {
  const giveUpAt = performance.now() + timeoutMs;
  while (!(await look())) {
    if (performance.now() > giveUpAt) return false;
    await sleep(LOOK_EVERY_MS);
  }
  return true;
}

function fieldsOf(text: string): Map<string, string> {
  return new Map(
    text.split('\r\n').flatMap((line) => {
      const colon = line.indexOf(':');
      return colon > 0 ? [[line.slice(0, colon), line.slice(colon + 1)] as const] : [];
    }),
  );
}
