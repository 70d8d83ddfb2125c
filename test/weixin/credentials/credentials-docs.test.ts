import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { loadConfig } from '../../../src/config.ts';
import { FAILURES } from '../../../src/failure.ts';

const text = readFileSync(new URL('../../../docs/credentials.md', import.meta.url), 'utf8');
const files = [...text.matchAll(/```json\n([\s\S]*?)```/g)].map(([, json = '']) => json);
let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'weixin-media-docs-'));
});

afterAll(() => rmSync(folder, { recursive: true }));

test.each(files)('the accounts file that it shows is accepted, once its secrets are there: %s', (json) => {
  const secretPath = join(folder, 'secret');
  const path = join(folder, 'accounts.json');
  writeFileSync(secretPath, 'a-secret');
  writeFileSync(path, json.replaceAll(/"file": "[^"]+"/g, `"file": ${JSON.stringify(secretPath)}`));
  const names = [...json.matchAll(/"env": "([A-Z_]+)"/g)].map(([, name = '']) => name);
  const secrets = Object.fromEntries(names.map((name) => [name, 'asecret'.repeat(7).slice(0, 43)]));
  expect(loadConfig({ WEIXIN_ACCOUNTS_FILE: path, ...secrets }).accounts).not.toEqual([]);
});

test('it has an example of each kind of credential', () => {
  const kinds = files.flatMap((json) => [...json.matchAll(/"type": "([a-z_]+)"/g)].map(([, kind]) => kind));
  for (const kind of ['stable_token', 'token', 'authorizer', 'external', 'cloud']) expect(kinds).toContain(kind);
});

test('every failure that it names is one', () => {
  const named = [...text.matchAll(/`([a-z]+(?:-[a-z]+)+)`/g)].map(([, name = '']) => name);
  const others = ['token-file', 'hd-voice'];
  expect(named.filter((name) => !Object.hasOwn(FAILURES, name) && !others.includes(name))).toEqual([]);
});

test('the API hosts that it shows are accepted', () => {
  const [, hosts = ''] = /^WEIXIN_API_BASE_URL=(.+)$/m.exec(text) ?? [];
  expect(loadConfig({ WEIXIN_API_BASE_URL: hosts }).weixin.apiBaseUrls).toHaveLength(3);
});
