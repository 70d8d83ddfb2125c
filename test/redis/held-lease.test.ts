import { afterEach, beforeEach, expect, test } from 'vitest';
import { LeaseLostError, whileHeld } from '../../src/redis/held-lease.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

const never = new AbortController().signal;
const HOLD_MS = 400;
/** So long that no machine is too slow to renew it in time. */
const LONG_HOLD_MS = 3_000;

let corner: TestRedis;

beforeEach(async () => {
  corner = await openTestRedis();
});

afterEach(() => corner[Symbol.asyncDispose]());

function aborted(signal: AbortSignal): Promise<unknown> {
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(signal.reason), { once: true }));
}

test('one at a time works, for longer than the lease lasts, and gives it back however it ends', async () => {
  const key = corner.keys.catalogLease;
  const { promise, resolve } = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  const first = whileHeld(corner.redis, key, LONG_HOLD_MS, never, async (signal, confirm) => {
    begun.resolve();
    await promise;
    confirm();
    signal.throwIfAborted();
    return 'done';
  });
  await begun.promise;
  const startedAt = performance.now();
  while (performance.now() - startedAt < 1.5 * LONG_HOLD_MS)
    expect(await whileHeld(corner.connect(), key, LONG_HOLD_MS, never, async () => 'not me')).toBeUndefined();
  resolve();
  expect(await first).toEqual({ value: 'done' });
  const failing = whileHeld(corner.redis, key, HOLD_MS, never, async () => {
    throw new Error('broken');
  });
  await expect(failing).rejects.toThrow('broken');
  expect(await corner.redis.exists(key)).toBe(0);
});

test('work whose lease somebody else has got is aborted, and does not give back what is not its own', async () => {
  const key = corner.keys.catalogLease;
  const held = whileHeld(corner.redis, key, HOLD_MS, never, async (signal, confirm) => {
    await corner.redis.set(key, 'somebody else');
    expect(await aborted(signal)).toBeInstanceOf(LeaseLostError);
    expect(confirm).toThrow(LeaseLostError);
  });
  await held;
  expect(await corner.redis.get(key)).toBe('somebody else');
});

test('a process that was frozen for longer than its lease is told before its next step', async () => {
  const held = whileHeld(corner.redis, corner.keys.catalogLease, HOLD_MS, never, async (signal, confirm) => {
    confirm();
    // No timer runs meanwhile, as in a process that is stopped.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, HOLD_MS + 50);
    expect(signal.aborted).toBe(false);
    expect(confirm).toThrow(LeaseLostError);
    expect(signal.aborted).toBe(true);
  });
  await held;
});

test('the signal of the caller ends the work too', async () => {
  const stop = new AbortController();
  const held = whileHeld(corner.redis, corner.keys.catalogLease, HOLD_MS, stop.signal, async (signal) => {
    stop.abort(new Error('stopped'));
    signal.throwIfAborted();
  });
  await expect(held).rejects.toThrow('stopped');
});
