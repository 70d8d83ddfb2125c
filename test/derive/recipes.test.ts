import { readFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import manifest from '../../package.json' with { type: 'json' };
import { DERIVE_FAILURES } from '../../src/derive/derive-failure.ts';
import { RECIPES, SILK_SAMPLE_RATE, SOURCES, sourceOfType } from '../../src/derive/recipes.ts';
import { SILK_TOOL } from '../../src/derive/silk.ts';

test('docs/derived-media.md has every recipe, type and word', async () => {
  const text = await readFile(new URL('../../docs/derived-media.md', import.meta.url), 'utf8');
  const lines = text.split('\n').filter((line) => line.startsWith('|'));
  for (const [type, { recipes }] of Object.entries(SOURCES)) {
    for (const recipe of recipes)
      expect(lines.find((line) => line.startsWith(`| \`${recipe}\` |`))).toMatch(`\`${type}\``);
  }
  for (const [code, { again }] of Object.entries(DERIVE_FAILURES))
    expect(lines.find((line) => line.startsWith(`| \`${code}\` |`))).toMatch(`| ${again.replaceAll('-', ' ')} |`);
});

describe('RECIPES', () => {
  test.each(Object.entries(RECIPES))('%s makes a file of a plain name within limits', (name, recipe) => {
    expect(name).toMatch(/^[a-z0-9-]+\/[1-9]\d*$/);
    expect(recipe.name).toMatch(/^[a-z]+\.[a-z0-9]+$/);
    expect(recipe.maxOutputBytes).toBeGreaterThan(0);
    expect(recipe.maxInputBytes).toBeGreaterThan(0);
    expect(recipe.output.at(-2)).toBe('-f');
  });

  test('are all of use', () => {
    const used = Object.values(SOURCES).flatMap(({ recipes }): readonly string[] => recipes);
    expect([...new Set(used)].toSorted()).toEqual(Object.keys(RECIPES).toSorted());
  });
});

describe('SOURCES', () => {
  test.each(Object.entries(SOURCES))('%s makes files of different names', (_, { recipes }) => {
    const names = recipes.map((recipe) => RECIPES[recipe].name);
    expect(names.length).toBeGreaterThan(0);
    expect(new Set(names).size).toBe(names.length);
  });

  test('hold nothing that an object has anyway', () => {
    for (const type of ['constructor', '__proto__', 'image/tiff', '', undefined])
      expect(sourceOfType(type)).toBeUndefined();
  });

  test('tell ffmpeg of the rate that SILK is decoded to', () => {
    expect(SOURCES['audio/silk'].input).toContain(String(SILK_SAMPLE_RATE));
  });
});

test('lineage names the silk-wasm that package.json pins', () => {
  expect(SILK_TOOL).toBe(`silk-wasm ${manifest.dependencies['silk-wasm']}`);
});

test.each(Object.entries(DERIVE_FAILURES))('%s says in a sentence what to do', (_, { hint }) => {
  expect(hint).toMatch(/^[A-Z].*\.$/);
});
