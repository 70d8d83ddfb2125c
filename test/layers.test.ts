import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, test } from 'vitest';

const run = promisify(execFile);
const root = fileURLToPath(new URL('..', import.meta.url));

/** The folders of src/, and what each may import of the others. */
const FOLDERS: Readonly<Record<string, readonly string[]>> = {
  media: [],
  derive: ['media'],
  redis: [],
  store: ['media'],
  weixin: ['media', 'redis'],
  archive: ['media', 'store', 'weixin'],
  'dead-letter': ['redis', 'store', 'archive'],
  catalog: ['media', 'redis', 'store', 'archive', 'dead-letter'],
  queue: ['media', 'redis', 'store', 'archive', 'dead-letter', 'catalog'],
  operate: ['media', 'derive', 'redis', 'store', 'weixin', 'archive', 'dead-letter', 'catalog', 'queue'],
  ingest: ['media', 'derive', 'redis', 'store', 'weixin', 'archive', 'dead-letter', 'catalog', 'queue', 'operate'],
  demo: [
    'media',
    'derive',
    'redis',
    'store',
    'weixin',
    'archive',
    'dead-letter',
    'catalog',
    'queue',
    'operate',
    'ingest',
  ],
};
const HOMES: Readonly<Record<string, string | readonly string[]>> = {
  bullmq: 'queue',
  ioredis: 'redis',
  '@duckdb/node-api': 'catalog',
  '@aws-sdk/client-s3': 'store',
  '@aws-sdk/lib-storage': 'store',
  '@smithy/signature-v4': 'store',
  // It carries the bytes, from there and to here.
  undici: ['weixin', 'store'],
  saxes: 'weixin',
  'prom-client': 'operate',
  commander: 'operate',
  fastify: 'ingest',
  '@fastify/rate-limit': 'ingest',
  'silk-wasm': 'derive',
  fauxqs: 'demo',
};
/** The environment: for the commands alone. */
const CONFIG = ['src/config.ts', 'src/config-variables.ts'];
const DEEP = ['bullmq/dist/esm/classes/queue.js', 'ioredis/built/Redis.js', 'undici/lib/web/fetch/index.js'];
const names = Object.keys(FOLDERS);

interface Case {
  readonly from: string;
  readonly imports: string;
  readonly allowed: boolean;
  readonly form?: (specifier: string) => string;
}

const FORMS = {
  'an import': (specifier) => `import { x } from '${specifier}';\nx();\n`,
  'an import of types': (specifier) => `import type { x } from '${specifier}';\nexport const y = (z: x) => z;\n`,
  'a re-export': (specifier) => `export { x } from '${specifier}';\n`,
  'a dynamic import': (specifier) => `export const x = () => import('${specifier}');\n`,
} as const satisfies Record<string, (specifier: string) => string>;

/** A file, and a file of this project or an SDK that it imports. */
function cases(): Case[] {
  const files = [
    ...names.map((folder) => ({ from: `src/${folder}/x.ts`, folder, may: FOLDERS[folder] ?? [] })),
    { from: 'src/weixin/credentials/x.ts', folder: 'weixin', may: FOLDERS['weixin'] ?? [] },
    { from: 'src/operate/cli.ts', folder: 'operate', may: names },
    ...CONFIG.map((from) => ({ from, folder: '', may: ['media', 'redis', 'store', 'weixin'] })),
    { from: 'src/index.ts', folder: '', may: ['media', 'redis', 'queue'] },
    { from: 'src/time.ts', folder: '', may: [] },
    { from: 'src/a-new-one.ts', folder: '', may: [] },
    { from: 'workers/archive.ts', folder: 'workers', may: names.filter((name) => name !== 'demo') },
    { from: 'workers/a-new-one.ts', folder: 'workers', may: names.filter((name) => name !== 'demo') },
  ];
  return files.flatMap(({ from, folder, may }): Case[] => [
    ...names
      .filter((name) => name !== folder)
      .map((name) => ({ from, imports: `src/${name}/y.ts`, allowed: may.includes(name) })),
    ...(CONFIG.includes(from)
      ? []
      : CONFIG.map((imports) => ({ from, imports, allowed: /operate|ingest|demo|workers/.test(folder) }))),
    ...(from === 'src/index.ts' ? [] : [{ from, imports: 'src/index.ts', allowed: false }]),
    ...(from === 'src/time.ts' ? [] : [{ from, imports: 'src/time.ts', allowed: true }]),
    ...(folder === 'workers' ? [] : [{ from, imports: 'workers/y.ts', allowed: folder === 'operate' }]),
    { from, imports: 'test/support/jobs.ts', allowed: false },
    { from, imports: 'weixin-media-archiver', allowed: false },
    { from, imports: 'zod', allowed: true },
    ...Object.entries(HOMES).map(([sdk, home]) => ({ from, imports: sdk, allowed: [home].flat().includes(folder) })),
    ...[...DEEP, '@aws-sdk/client-s3/dist-es/S3Client.js'].map((deep) => ({ from, imports: deep, allowed: false })),
    { from, imports: 'node_modules/bullmq/dist/esm/index.js', allowed: false },
  ]);
}

const FORMED: readonly Case[] = Object.values(FORMS).flatMap((form) => [
  { from: 'src/media/x.ts', imports: 'src/config.ts', allowed: false, form },
  { from: 'src/media/x.ts', imports: 'bullmq', allowed: false, form },
  { from: 'src/queue/x.ts', imports: DEEP[0] ?? '', allowed: false, form },
]);

describe('the linter', () => {
  const all = [...cases(), ...FORMED];
  let refused: Set<number>;

  /** Every case lies in a project of its own, all of them under one: one run of the linter sees them all. */
  beforeAll(async () => {
    const folder = await mkdtemp(join(tmpdir(), 'weixin-media-layers-'));
    try {
      const config = JSON.parse(await readFile(join(root, 'biome.json'), 'utf8')) as {
        overrides: { includes: string[] }[];
      };
      const overrides = config.overrides.map(({ includes, ...rest }) => ({
        ...rest,
        includes: includes.map((pattern) => pattern.replace(/^(!?)/, '$1*/')),
      }));
      await writeFile(join(folder, 'biome.json'), JSON.stringify({ ...config, vcs: { enabled: false }, overrides }));
      await Promise.all(
        all.map(async ({ from, imports, form = FORMS['an import'] }, index) => {
          const path = join(folder, String(index), from);
          await mkdir(dirname(path), { recursive: true });
          const inside = /^(src|workers|test|node_modules)\//.test(imports);
          const specifier = inside ? relative(dirname(from), imports).replace(/^(?!\.)/, './') : imports;
          await writeFile(path, form(specifier));
        }),
      );
      const biome = join(root, 'node_modules/@biomejs/biome/bin/biome');
      const args = ['lint', '--only=style/noRestrictedImports', '--max-diagnostics=none', '--reporter=json'];
      const options = { cwd: folder, maxBuffer: 64 * 1024 * 1024 };
      const { stdout } = await run(process.execPath, [biome, ...args], options).catch(
        (error: { stdout: string }) => error,
      );
      refused = new Set([...stdout.matchAll(/"path":\s*"(\d+)\//g)].map(([, index]) => Number(index)));
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });

  test('knows every folder of src/', async () => {
    const entries = await readdir(join(root, 'src'), { withFileTypes: true });
    const folders = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
    expect(folders.toSorted()).toEqual(names.toSorted());
  });

  test.each([...new Set(all.map(({ from }) => from))])('lets %s import what it may, and refuses all else', (file) => {
    const mine = [...all.entries()].filter(([, { from }]) => from === file);
    const importsOf = (chosen: typeof mine): string[] => chosen.map(([, { imports }]) => imports);
    expect(importsOf(mine.filter(([index]) => refused.has(index)))).toEqual(
      importsOf(mine.filter(([, { allowed }]) => !allowed)),
    );
    expect(importsOf(mine.filter(([, { allowed }]) => allowed))).not.toEqual([]);
  });
});
