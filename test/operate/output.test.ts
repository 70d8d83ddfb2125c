import { PassThrough } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { byteCount, createOutput, duration, fields, type Output, table, wrapped } from '../../src/operate/output.ts';

function outputOf(json: boolean): { output: Output; stdout: () => string; stderr: () => string } {
  const texts = { stdout: '', stderr: '' };
  const stderr = new PassThrough();
  stderr.setEncoding('utf8').on('data', (text: string) => {
    texts.stderr += text;
  });
  const stdout = { write: (text: string) => (texts.stdout += text) };
  return {
    output: createOutput(json, { stdout, stderr: stderr as unknown as NodeJS.WriteStream }),
    stdout: () => texts.stdout,
    stderr: () => texts.stderr,
  };
}

test('a result is one line of JSON, or the text for people', () => {
  const json = outputOf(true);
  json.output.result({ a: 'x\ny' }, () => 'never asked for');
  json.output.result({ b: 1 }, () => '');
  expect(json.stdout()).toBe('{"a":"x\\ny"}\n{"b":1}\n');
  const text = outputOf(false);
  text.output.result({ a: 1 }, () => 'for people');
  expect(text.stdout()).toBe('for people\n');
});

test('nothing that a peer has said reaches a terminal as a command to it', async () => {
  const { output, stdout, stderr } = outputOf(false);
  for (const tell of [(text: string) => output.result({}, () => text), output.note])
    tell('a\u001b[2Jb\u009b1mc\rd\u0007\te\nf 图');
  await new Promise((resolve) => setImmediate(resolve));
  for (const text of [stdout(), stderr()]) expect(text).toBe('a\ufffd[2Jb\ufffd1mc\ufffdd\ufffd\te\nf 图\n');
});

test('remarks go to stderr, and progress is shown on a terminal only', async () => {
  const { output, stdout, stderr } = outputOf(true);
  output.note('a remark');
  using progress = output.progress('work', 10);
  progress.total(20);
  progress.advance(5);
  progress.stop();
  await new Promise((resolve) => setImmediate(resolve));
  expect(stdout()).toBe('');
  expect(stderr()).toBe('a remark\n');
});

test('a table has its columns under each other, numbers to the right, and no blanks at the end', () => {
  const rows = [
    ['a long name', 1, '1.0 KiB', 'x'],
    ['图', 22, '-', ''],
  ];
  expect(table(['app', 'n', 'bytes', 'why'], rows).split('\n')).toEqual([
    'app           n    bytes  why',
    'a long name   1  1.0 KiB  x',
    '图           22        -',
  ]);
});

describe('fields', () => {
  test('are labels with their lines; what is not known is left out', () => {
    const text = fields([
      ['state', 'dead'],
      ['kind', undefined],
      ['a long label', 'one', undefined, 'two'],
    ]);
    expect(text.split('\n')).toEqual(['state         dead', 'a long label  one', '              two']);
    expect(fields([['kind', undefined]])).toBe('');
  });

  test('are broken between words, and hold what has none whole, to be copied', () => {
    const key = 'x'.repeat(100);
    const lines = fields([['why', 'many words '.repeat(20).trim(), key]]).split('\n');
    expect(lines.length).toBeGreaterThan(3);
    for (const line of lines.slice(0, -1)) expect(line.length).toBeLessThan(80);
    expect(lines.at(-1)).toBe(`     ${key}`);
  });

  test('keep every word in its order, whatever the text', () => {
    fc.assert(
      fc.property(fc.string(), fc.integer({ min: 1, max: 100 }), (text, width) => {
        const words = (line: string): string[] => line.split(' ').filter((word) => word !== '');
        expect(words(wrapped(text, width).join(' '))).toEqual(words(text));
      }),
    );
  });
});

describe('a length of time', () => {
  test.each([
    [0, '0 s'],
    [499, '0 s'],
    [59_499, '59 s'],
    [60_000, '1 min'],
    [3_661_000, '1 h 1 min'],
    [3 * 86_400_000 + 2 * 3_600_000 + 5_000, '3 d 2 h'],
    [86_400_000 + 60_000, '1 d'],
    [-90_000, '-1 min 30 s'],
  ])('of %d ms is %s', (ms, expected) => {
    expect(duration(ms)).toBe(expected);
  });
});

test.each([
  [0, '0 B'],
  [1_023, '1023 B'],
  [1_024, '1.0 KiB'],
  [1_572_864, '1.5 MiB'],
  [3 * 1024 ** 4, '3.0 TiB'],
  [5_000 * 1024 ** 4, '5000.0 TiB'],
])('%d bytes are %s', (bytes, expected) => {
  expect(byteCount(bytes)).toBe(expected);
});

test('any count of bytes has a unit', () => {
  fc.assert(fc.property(fc.maxSafeNat(), (bytes) => /^\d+(\.\d)? (B|KiB|MiB|GiB|TiB)$/.test(byteCount(bytes))));
});
