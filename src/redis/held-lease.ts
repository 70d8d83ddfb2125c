import type { RedisClient } from './connect.ts';
import { type Lease, releaseLease, takeLease } from './lease.ts';

/** The reason with which work is aborted whose lease is lost. */
export class LeaseLostError extends Error {
  override readonly name = 'LeaseLostError';
}

/** Times a lease is renewed within its life. */
const RENEWALS = 4;

/** To be asked before each step that another holder must not meet. @throws LeaseLostError once the lease may have ended. */
export type Confirm = () => void;

/**
 * Does work of any length that one process at a time may do. Returns `undefined` while another does it.
 *
 * The lease is renewed as long as the work goes on. When it is lost, or Redis has not confirmed it for as long as it
 * lasts, the signal that the work was given aborts with a `LeaseLostError`. A process that was frozen may get to a step
 * before its signal aborts: `confirm` looks at the clock.
 *
 * @throws what `work` throws, and what Redis throws when the lease can't be asked for.
 */
export async function whileHeld<T>(
  redis: RedisClient,
  key: string,
  holdMs: number,
  signal: AbortSignal,
  work: (signal: AbortSignal, confirm: Confirm) => Promise<T>,
): Promise<{ readonly value: T } | undefined> {
  let heldSince = performance.now();
  const lease = await takeLease(redis, key, holdMs);
  if (lease === undefined) return undefined;
  const lost = new AbortController();
  const renew = async (): Promise<void> => {
    const askedAt = performance.now();
    const held = await extendLease(redis, lease, holdMs).catch(() => undefined);
    if (held === true) heldSince = askedAt;
    else if (held === false) lost.abort(new LeaseLostError(`${key} is no longer ours`));
  };
  const timer = setInterval(() => {
    void renew();
    if (performance.now() - heldSince > holdMs - holdMs / RENEWALS)
      lost.abort(new LeaseLostError(`${key} could not be renewed`));
  }, holdMs / RENEWALS);
  const confirm = (): void => {
    if (performance.now() - heldSince >= holdMs) lost.abort(new LeaseLostError(`${key} could not be renewed`));
    lost.signal.throwIfAborted();
  };
  try {
    return { value: await work(AbortSignal.any([signal, lost.signal]), confirm) };
  } finally {
    clearInterval(timer);
    // It ends by itself.
    await releaseLease(redis, lease).catch(() => undefined);
  }
}

async function extendLease(redis: RedisClient, { key, owner }: Lease, holdMs: number): Promise<boolean> {
  const script = `if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('PEXPIRE', KEYS[1], ARGV[2])`;
  return (await redis.eval(script, 1, key, owner, Math.ceil(holdMs))) === 1;
}
