import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import * as answers from '../../src/ingest/push-answer.ts';
import { AES_KEY } from '../support/push.ts';

const text = readFileSync(new URL('../../docs/message-push.md', import.meta.url), 'utf8');
const files = [...text.matchAll(/```json\n([\s\S]*?)```/g)].map(([, json = '']) => json);
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weixin-media-docs-'));
});

afterAll(() => rm(folder, { recursive: true }));

test.each(files)('the accounts file that it shows is accepted: %s', async (json) => {
  const path = join(folder, 'accounts.json');
  await writeFile(path, json);
  const names = [...json.matchAll(/"env": "([A-Z_]+)"/g)].map(([, name = '']) => name);
  const secrets = Object.fromEntries(names.map((name) => [name, AES_KEY]));
  const { accounts, components } = loadConfig({ WEIXIN_ACCOUNTS_FILE: path, ...secrets });
  expect([...accounts, ...components].map(({ push }) => push)).toEqual([expect.anything()]);
});

test('it shows two of them', () => {
  expect(files).toHaveLength(2);
});

test('it says when each answer is given', () => {
  const ours = [...new Set(Object.values(answers).map(({ status }) => status))];
  expect(ours.filter((status) => !new RegExp(`\\b${status}\\b`).test(text))).toEqual([]);
});
