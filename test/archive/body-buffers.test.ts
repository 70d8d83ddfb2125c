import { expect, test } from 'vitest';
import { BodyBuffers } from '../../src/archive/body-buffers.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

test.each([0, 1, 16 * KIB, 64 * KIB, 128 * KIB + 1, 200_000, MIB, 5 * MIB + 1, 8 * MIB])(
  'gives %i bytes, and never fewer than it says',
  (size) => {
    const buffers = new BodyBuffers(64 * MIB);
    const bytes = buffers.take(size);
    expect(bytes.byteLength).toBe(size);
    expect(bytes.buffer.byteLength).toBe(buffers.footprint(size));
    expect(buffers.footprint(size) - size).toBeLessThanOrEqual(size / 4);
    // What is given back is found again.
    expect(buffers.footprint(bytes.buffer.byteLength)).toBe(bytes.buffer.byteLength);
  },
);

test('what was given back is used again, for a body of about that size', () => {
  const buffers = new BodyBuffers(64 * MIB);
  const first = buffers.take(200_000);
  buffers.give(first);
  expect(buffers.take(MIB).buffer).not.toBe(first.buffer);
  const second = buffers.take(210_000);
  expect(second.buffer).toBe(first.buffer);
  expect(second.byteLength).toBe(210_000);
  // It is in use.
  expect(buffers.take(210_000).buffer).not.toBe(first.buffer);
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

test('what nobody has had for the longest time makes room for what comes now', () => {
  const buffers = new BodyBuffers(8 * MIB);
  const video = buffers.take(8 * MIB);
  buffers.give(video);
  const images = Array.from({ length: 4 }, () => buffers.take(MIB));
  for (const bytes of images) buffers.give(bytes);
  expect(buffers.take(8 * MIB).buffer).not.toBe(video.buffer);
  const known = new Set(images.map(({ buffer }) => buffer));
  expect(Array.from({ length: 4 }, () => known.has(buffers.take(MIB).buffer))).toEqual([true, true, true, true]);
});
