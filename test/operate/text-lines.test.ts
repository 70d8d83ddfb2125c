import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type TextLine, textLines } from '../../src/operate/text-lines.ts';

const encoder = new TextEncoder();

async function linesOf(text: string, chunkBytes: number, maxLength = 1_000): Promise<TextLine[]> {
  const bytes = encoder.encode(text);
  async function* chunks(): AsyncGenerator<Uint8Array> {
    for (let start = 0; start < bytes.length; start += chunkBytes) yield bytes.subarray(start, start + chunkBytes);
  }
  return Array.fromAsync(textLines(chunks(), maxLength));
}

test.each([
  ['', []],
  ['a', ['a']],
  ['a\n', ['a']],
  ['a\nb', ['a', 'b']],
  ['\n\na\n', ['', '', 'a']],
  ['a\r\nb\r\n', ['a\r', 'b\r']],
  ['a\u2028b\u2029c\u0085d\n', ['a\u2028b\u2029c\u0085d']],
  ['\ufeffa\n', ['a']],
  ['图片\n声音', ['图片', '声音']],
])('%j has the lines %j', async (text, expected) => {
  const numbered = expected.map((line, index) => ({ number: index + 1, text: line }));
  for (const chunkBytes of [1, 2, 3, 1_000]) expect(await linesOf(text, chunkBytes)).toEqual(numbered);
});

test('a line that is too long has its number, and those around it are whole', async () => {
  const text = `before\n${'x'.repeat(50)}\nafter\n${'y'.repeat(50)}`;
  for (const chunkBytes of [1, 7, 1_000]) {
    expect(await linesOf(text, chunkBytes, 10)).toEqual([
      { number: 1, text: 'before' },
      { number: 2, text: undefined },
      { number: 3, text: 'after' },
      { number: 4, text: undefined },
    ]);
  }
});

test('wherever the chunks are cut, the lines are the same', async () => {
  const texts = fc.string({ unit: fc.constantFrom('a', '\n', '\r', 'é', '图', '😀', '\u2028'), maxLength: 60 });
  await fc.assert(
    fc.asyncProperty(
      texts,
      fc.integer({ min: 1, max: 20 }),
      fc.integer({ min: 1, max: 12 }),
      async (text, size, most) => {
        const lines = text.split('\n');
        if (lines.at(-1) === '') lines.pop();
        const expected = lines.map((line, index) => ({
          number: index + 1,
          text: line.length > most ? undefined : line,
        }));
        expect(await linesOf(text, size, most)).toEqual(expected);
      },
    ),
  );
});
