import { getEventListeners } from 'node:events';
import { describe, expect, test, vi } from 'vitest';
import { orAbort, timeLimit } from '../src/abort.ts';

function listenersOf(signal: AbortSignal): number {
  return getEventListeners(signal, 'abort').length;
}

describe('orAbort', () => {
  test('gives what the work gives', async () => {
    const { signal } = new AbortController();
    await expect(orAbort(Promise.resolve(7), signal)).resolves.toBe(7);
    await expect(orAbort(Promise.reject(new Error('failed')), signal)).rejects.toThrow('failed');
    expect(listenersOf(signal)).toBe(0);
  });

  test('rejects with the reason of the signal when that comes first, and lets go of the signal', async () => {
    const controller = new AbortController();
    const waiting = orAbort(new Promise(() => undefined), controller.signal);
    expect(listenersOf(controller.signal)).toBe(1);
    const reason = new Error('stop');
    controller.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    expect(listenersOf(controller.signal)).toBe(0);
  });

  test('work that many wait for is listened to once, and gives each of those who stayed what it gives', async () => {
    const work = Promise.withResolvers<number>();
    const listens = vi.spyOn(work.promise, 'then');
    const [leaving, staying] = [new AbortController(), new AbortController()];
    const left = Array.from({ length: 100 }, () => orAbort(work.promise, leaving.signal));
    const stayed = [1, 2].map(() => orAbort(work.promise, staying.signal));
    leaving.abort(new Error('stop'));
    for (const one of await Promise.allSettled(left)) expect(one).toMatchObject({ reason: new Error('stop') });
    const later = orAbort(work.promise, staying.signal);
    expect(listens).toHaveBeenCalledOnce();
    work.resolve(7);
    expect(await Promise.all([...stayed, later])).toEqual([7, 7, 7]);
    expect(await orAbort(work.promise, staying.signal)).toBe(7);
    expect(listenersOf(staying.signal)).toBe(0);
  });

  test('work that fails tells each of those who stayed', async () => {
    const work = Promise.withResolvers<never>();
    const { signal } = new AbortController();
    const waiting = Promise.allSettled([1, 2].map(() => orAbort(work.promise, signal)));
    work.reject(new Error('failed'));
    expect(await waiting).toMatchObject([{ reason: new Error('failed') }, { reason: new Error('failed') }]);
    await expect(orAbort(work.promise, signal)).rejects.toThrow('failed');
  });

  test.each([
    ['after the signal', false],
    ['although the signal had aborted before', true],
  ])('work that fails %s does not end the process', async (_when, abortedBefore) => {
    const controller = new AbortController();
    const work = Promise.withResolvers<never>();
    const unhandled: unknown[] = [];
    const remember = (reason: unknown): void => void unhandled.push(reason);
    const others = process.listeners('unhandledRejection');
    process.removeAllListeners('unhandledRejection').on('unhandledRejection', remember);
    try {
      if (abortedBefore) controller.abort(new Error('stop'));
      const waiting = orAbort(work.promise, controller.signal);
      controller.abort(new Error('stop'));
      await expect(waiting).rejects.toThrow('stop');
      work.reject(new Error('too late'));
      // Rejections that nobody handles are told once the microtasks are done.
      await new Promise((resolve) => setImmediate(resolve));
      expect(unhandled).toEqual([]);
    } finally {
      process.removeAllListeners('unhandledRejection');
      for (const listener of others) process.on('unhandledRejection', listener);
    }
  });
});

describe('timeLimit', () => {
  test('ends with a TimeoutError when the time is up', async () => {
    using limit = timeLimit(new AbortController().signal, 1);
    await new Promise((resolve) => limit.signal.addEventListener('abort', resolve));
    expect(limit.expired).toBe(true);
    expect(limit.signal.reason).toMatchObject({ name: 'TimeoutError' });
  });

  test('ends with its parent, for the reason of the parent', () => {
    const parent = new AbortController();
    using limit = timeLimit(parent.signal, 3_600_000);
    expect(limit.signal.aborted).toBe(false);
    parent.abort('stop');
    expect(limit.signal.reason).toBe('stop');
    expect(limit.expired).toBe(false);
  });

  test('has ended when its parent had', () => {
    using limit = timeLimit(AbortSignal.abort('stop'), 3_600_000);
    expect(limit.signal.reason).toBe('stop');
    expect(limit.expired).toBe(false);
  });

  test('lets go of parent and timer when it is disposed of', () => {
    const parent = new AbortController();
    const timers = (): number => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
    const before = timers();
    {
      using limit = timeLimit(parent.signal, 3_600_000);
      expect(limit.signal.aborted).toBe(false);
      expect(listenersOf(parent.signal)).toBe(1);
      expect(timers()).toBe(before + 1);
    }
    expect(listenersOf(parent.signal)).toBe(0);
    expect(timers()).toBe(before);
  });
});
