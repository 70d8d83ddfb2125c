import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { digestStream } from '../../src/archive/digest-stream.ts';

async function* from(chunks: readonly Uint8Array[]): AsyncIterable<Uint8Array> {
  yield* chunks;
}

test('passes every byte on and knows what they were', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 50 })), async (chunks) => {
      const whole = Buffer.concat(chunks);
      const stream = digestStream(from(chunks));
      expect(Buffer.concat(await Array.fromAsync(stream.chunks))).toEqual(whole);
      const digest = { sizeBytes: whole.byteLength, sha256: createHash('sha256').update(whole).digest('hex') };
      expect(stream.digest()).toEqual(digest);
      expect(stream.digest()).toEqual(digest);
    }),
  );
});

test('reads no further than it is read', async () => {
  let given = 0;
  async function* source(): AsyncIterable<Uint8Array> {
    for (;;) {
      given += 1;
      yield Buffer.from('x');
    }
  }
  const chunks = digestStream(source()).chunks[Symbol.asyncIterator]();
  await chunks.next();
  await chunks.next();
  expect(given).toBe(2);
});

test('passes on what its source throws', async () => {
  const reason = new Error('broken');
  async function* source(): AsyncIterable<Uint8Array> {
    yield Buffer.from('x');
    throw reason;
  }
  await expect(Array.fromAsync(digestStream(source()).chunks)).rejects.toBe(reason);
});

test('ends its source when it is left early', async () => {
  let ended = false;
  async function* source(): AsyncIterable<Uint8Array> {
    try {
      yield Buffer.from('x');
      yield Buffer.from('y');
    } finally {
      ended = true;
    }
  }
  for await (const _chunk of digestStream(source()).chunks) break;
  expect(ended).toBe(true);
});
