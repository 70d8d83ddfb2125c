import { expect, test } from 'vitest';
import { BodyBuffers } from '../../src/archive/body-buffers.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

test.each([0, 1, 64 * KIB, 128 * KIB, 200_000, MIB, 8 * MIB])(
  'gives %i bytes, and never fewer than it says',
  (size) => {
    const buffers = new BodyBuffers(64 * MIB);
    const bytes = buffers.take(size);
    expect(bytes.byteLength).toBe(size);
    expect(bytes.buffer.byteLength).toBe(buffers.footprint(size));
    expect(buffers.footprint(size) - size).toBeLessThan(128 * KIB);
  },
);

test('what was given back is used again, for a body of about that size', () => {
  const buffers = new BodyBuffers(64 * MIB);
  const first = buffers.take(200_000);
  buffers.give(first);
  expect(buffers.take(MIB).buffer).not.toBe(first.buffer);
  const second = buffers.take(150_000);
  expect(second.buffer).toBe(first.buffer);
  expect(second.byteLength).toBe(150_000);
  // It is in use.
  expect(buffers.take(150_000).buffer).not.toBe(first.buffer);
});

test('no more is kept than it may, and nothing small', () => {
  const buffers = new BodyBuffers(2 * MIB);
  const taken = Array.from({ length: 4 }, () => buffers.take(MIB));
  for (const bytes of taken) buffers.give(bytes);
  const again = Array.from({ length: 4 }, () => buffers.take(MIB));
  const known = new Set(taken.map(({ buffer }) => buffer));
  expect(again.filter(({ buffer }) => known.has(buffer))).toHaveLength(2);
  const small = buffers.take(1_000);
  buffers.give(small);
  expect(buffers.take(1_000).buffer).not.toBe(small.buffer);
});
