import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { loadConfig, VARIABLES } from '../src/config.ts';
import { FAILURES } from '../src/failure.ts';
import { parseMediaJob } from '../src/media/media-job.ts';

function fileText(name: string): string {
  return readFileSync(new URL(`../${name}`, import.meta.url), 'utf8');
}

const readme = fileText('README.md');

/** The cells of the table whose first column is called so. */
function tableOf(firstColumn: string): string[][] {
  const lines = readme.split('\n');
  const head = lines.findIndex((line) => line.startsWith(`| ${firstColumn} |`));
  const rows = lines.slice(head + 2);
  const end = rows.findIndex((line) => !line.startsWith('|'));
  return rows.slice(0, end).map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

describe('the table of failures', () => {
  const rows = tableOf('failure');

  test('is the table of the program, row for row', () => {
    const expected = Object.entries(FAILURES).map(([code, { action, hint }]) => [`\`${code}\``, action, hint]);
    expect(rows).toEqual(expected);
  });
});

describe('the table of variables', () => {
  const rows = tableOf('variable');

  test('names every variable that the program reads, and none beyond', () => {
    expect(rows.map(([name]) => name).toSorted()).toEqual(
      Object.keys(VARIABLES)
        .map((name) => `\`${name}\``)
        .toSorted(),
    );
  });

  test.each(Object.entries(VARIABLES) as [string, { default?: string }][])('%s has its default', (name, variable) => {
    const shown = rows.find(([cell]) => cell === `\`${name}\``)?.[1];
    // Its default depends on another variable and is told in words.
    if (name === 'ARCHIVE_OPEN_ID') expect(variable.default).toBeUndefined();
    else expect(shown).toBe(variable.default === undefined ? '–' : `\`${variable.default}\``);
  });

  test('says what each variable is for', () => {
    for (const [, , meaning] of rows) expect(meaning).toMatch(/\w/);
  });
});

test('the accounts file that it shows is accepted but for its secrets, which are not here', () => {
  const [, json = ''] = /```json\n([\s\S]*?)```/.exec(readme) ?? [];
  const { accounts } = JSON.parse(json) as { accounts: { appId: string; credential: { type: string } }[] };
  expect(accounts.map(({ credential }) => credential.type)).toEqual(['stable_token', 'token']);
  for (const { appId } of accounts) {
    expect(loadConfig({ WEIXIN_APP_ID: appId, WEIXIN_APP_SECRET: 'x' }).accounts).toHaveLength(1);
  }
});

test('the job that its webhook handler builds is a MediaJob', () => {
  const [, fields = ''] = /producer\.enqueue\(\{([\s\S]*?)\n {4}\}\);/.exec(readme) ?? [];
  const names = [...fields.matchAll(/^ {6}(\w+):/gm)].map(([, name]) => name);
  expect(names).toEqual(['v', 'appId', 'mediaId', 'kind', 'receivedAt', 'source']);
  const job = {
    v: 1,
    appId: 'wx0123456789abcdef',
    mediaId: 'MEDIA_ID',
    kind: 'video',
    receivedAt: new Date(1_700_000_000_000).toISOString(),
    source: { messageId: '1' },
  };
  expect(parseMediaJob(job, Date.now()).ok).toBe(true);
});

test('every npm script that it names is there', () => {
  const { scripts } = JSON.parse(fileText('package.json')) as { scripts: Record<string, string> };
  const named = [...readme.matchAll(/npm run (?:-s )?([a-z:]+)/g)].map(([, name = '']) => name);
  expect(named.length).toBeGreaterThan(5);
  expect(named.filter((name) => !(name in scripts))).toEqual([]);
});

test('every file that it links to is there', () => {
  const links = [...readme.matchAll(/\]\(([^)#]+)\)/g)]
    .map(([, path = '']) => path)
    .filter((path) => !/^http/.test(path));
  expect(links).not.toEqual([]);
  for (const path of links) expect(fileText(path)).not.toBe('');
});

test('docker-compose.yml sets no variable that the program refuses', () => {
  const names = [...fileText('docker-compose.yml').matchAll(/^ {6}([A-Z][A-Z0-9_]+):/gm)].map(([, name = '']) => name);
  expect(names).toContain('ARCHIVE_BUCKET');
  const known = new Set([...Object.keys(VARIABLES), 'AWS_ENDPOINT_URL_S3', 'AWS_REGION']);
  expect(names.filter((name) => !known.has(name))).toEqual([]);
});
