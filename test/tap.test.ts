import { expect, test } from 'vitest';
import { tap } from '../src/tap.ts';

/** Counts up, and notes that it was closed. */
function source(count: number): { numbers: AsyncIterable<number>; closed: () => number } {
  let closed = 0;
  async function* numbers(): AsyncIterable<number> {
    try {
      for (let number = 1; number <= count; number += 1) yield number;
    } finally {
      closed += 1;
    }
  }
  return { numbers: numbers(), closed: () => closed };
}

test('everything passes, is seen once, and then the end', async () => {
  const seen: unknown[] = [];
  const { numbers, closed } = source(3);
  const tapped = tap(
    numbers,
    (number) => seen.push(number),
    () => seen.push('end'),
  );
  expect(await Array.fromAsync(tapped)).toEqual([1, 2, 3]);
  expect(seen).toEqual([1, 2, 3, 'end']);
  expect(closed()).toBe(1);
});

test('the end is seen once, however often it is asked for', async () => {
  let ends = 0;
  const iterator = tap(
    source(0).numbers,
    () => undefined,
    () => {
      ends += 1;
    },
  )[Symbol.asyncIterator]();
  for (let asked = 0; asked < 3; asked += 1) expect(await iterator.next()).toEqual({ done: true, value: undefined });
  expect(ends).toBe(1);
});

test('a reader that has enough closes the source, and the end is not seen', async () => {
  const { numbers, closed } = source(3);
  for await (const number of tap(
    numbers,
    () => undefined,
    () => expect.unreachable(),
  ))
    if (number === 2) break;
  expect(closed()).toBe(1);
});

test.each(['onChunk', 'onEnd'])('what %s throws closes the source and is thrown', async (where) => {
  const { numbers, closed } = source(2);
  const fail = (): never => {
    throw new Error('no good');
  };
  const tapped = where === 'onChunk' ? tap(numbers, fail) : tap(numbers, () => undefined, fail);
  const iterator = tapped[Symbol.asyncIterator]();
  await expect(
    (async () => {
      for (;;) if ((await iterator.next()).done === true) return;
    })(),
  ).rejects.toThrow('no good');
  expect(closed()).toBe(1);
  expect(await iterator.next()).toEqual({ done: true, value: undefined });
});

test('what the source throws is thrown', async () => {
  async function* broken(): AsyncIterable<number> {
    yield 1;
    throw new Error('broken');
  }
  await expect(
    Array.fromAsync(
      tap(
        broken(),
        () => undefined,
        () => expect.unreachable(),
      ),
    ),
  ).rejects.toThrow('broken');
});
