import { Validator } from '@seriousme/openapi-schema-validator';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openIngest, type TestIngest } from '../support/ingest.ts';
import { testJob } from '../support/jobs.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

interface Document {
  readonly openapi: string;
  readonly info: { readonly description: string };
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
}

interface Operation {
  readonly summary?: string;
  readonly security?: readonly object[];
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: Record<string, unknown> }>> };
  readonly parameters?: readonly { readonly name: string; readonly in: string }[];
  readonly responses: Readonly<Record<string, { readonly content?: object }>>;
}

let corner: TestRedis;
let ingest: TestIngest;
let document: Document;

beforeAll(async () => {
  corner = await openTestRedis();
  ingest = await openIngest({ REDIS_URL: corner.url, QUEUE_PREFIX: corner.prefix });
  document = (await (await fetch(`${ingest.url}/openapi.json`)).json()) as Document;
});

afterAll(async () => {
  await ingest.stop();
  await corner[Symbol.asyncDispose]();
});

describe('the document', () => {
  test('is valid OpenAPI 3.1', async () => {
    expect(document.openapi).toBe('3.1.0');
    const { valid, errors } = await new Validator().validate(structuredClone({ ...document }));
    expect({ valid, errors }).toEqual({ valid: true, errors: undefined });
  });

  test('has every route, and none of the rest', () => {
    const routes = Object.entries(document.paths).flatMap(([path, operations]) =>
      Object.keys(operations).map((method) => `${method.toUpperCase()} ${path}`),
    );
    expect(routes.toSorted()).toEqual([
      'GET /healthz',
      'GET /metrics',
      'GET /readyz',
      'GET /v1/dead-letters',
      'GET /v1/dead-letters/{appId}/{mediaId}',
      'GET /v1/media/{appId}/{mediaId}',
      'POST /v1/dead-letters/discard',
      'POST /v1/dead-letters/replay',
      'POST /v1/media',
    ]);
  });

  test('says of each what it is, what it takes, and that its problems are problem+json', () => {
    for (const [path, operations] of Object.entries(document.paths)) {
      for (const [method, { summary, security, responses, requestBody }] of Object.entries(operations)) {
        expect(summary).toMatch(/\.$/);
        expect(security).toEqual(/^\/(healthz|readyz)$/.test(path) ? undefined : [{ token: [] }]);
        expect(requestBody === undefined).toBe(method === 'get');
        for (const [status, { content }] of Object.entries(responses)) {
          if (Number(status) >= 400) expect(Object.keys(content ?? {})).toEqual(['application/problem+json']);
        }
      }
    }
  });

  test('has the schema of a MediaJob, whole', () => {
    const body = document.paths['/v1/media']?.['post']?.requestBody?.content['application/json']?.schema;
    expect(body?.['anyOf']).toMatchObject([
      {
        required: ['v', 'appId', 'mediaId', 'receivedAt'],
        additionalProperties: false,
        properties: {
          v: { enum: [1] },
          appId: { pattern: '^wx[0-9a-f]{16}$' },
          kind: { enum: expect.arrayContaining(['image', 'voice']) },
          receivedAt: { format: 'date-time' },
          variant: { enum: ['hd-voice'] },
          labels: { type: 'object', additionalProperties: { type: 'string', maxLength: 256 } },
        },
      },
      { properties: { items: { minItems: 1, maxItems: 1_000 } } },
    ]);
  });

  test('says where a body may be refused, and where a token', () => {
    for (const operations of Object.values(document.paths)) {
      for (const { security, responses, requestBody } of Object.values(operations)) {
        const has = (...statuses: number[]): boolean[] => statuses.map((status) => `${status}` in responses);
        expect(has(401, 403, 429)).toEqual(Array(3).fill(security !== undefined));
        expect(has(413, 415)).toEqual(Array(2).fill(requestBody !== undefined));
      }
    }
    for (const path of Object.keys(document.paths).filter((name) => name.startsWith('/v1/'))) {
      expect(Object.values(document.paths[path] ?? {})[0]?.responses).toHaveProperty('503');
    }
  });

  test('has an example of receivedAt that is taken', async () => {
    const body = document.paths['/v1/media']?.['post']?.requestBody?.content['application/json']?.schema;
    const [job] = (body?.['anyOf'] ?? []) as { properties: { receivedAt: { examples: string[] } } }[];
    const [receivedAt = ''] = job?.properties.receivedAt.examples ?? [];
    await ingest.ready();
    expect((await ingest.post('/v1/media', testJob({ receivedAt }))).status).toBe(202);
  });

  test('tells of the addresses for WeChat, which are not among its routes', () => {
    expect(document.info.description).toMatch(/\/weixin\/\{appId\}[\s\S]*docs\/message-push\.md/);
  });

  test('has every filter of the list as a parameter, and none of them must be given', () => {
    const parameters = document.paths['/v1/dead-letters']?.['get']?.parameters ?? [];
    expect(parameters.map(({ name }) => name).toSorted()).toEqual([
      'app',
      'cursor',
      'errcode',
      'limit',
      'reason',
      'since',
      'until',
    ]);
    expect(parameters.some((parameter) => 'required' in parameter && parameter.required === true)).toBe(false);
  });
});

describe('the page', () => {
  test('and all that it loads come from this server, under a policy that allows nothing else', async () => {
    const page = await fetch(`${ingest.url}/docs`);
    expect(page.status).toBe(200);
    const policy = page.headers.get('content-security-policy') ?? '';
    expect(policy).toMatch(/default-src 'none'/);
    expect(policy).toMatch(/frame-ancestors 'none'/);
    expect(policy).not.toMatch(/https?:|\*|script-src[^;]*unsafe/);
    const html = await page.text();
    const loaded = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, path = '']) => path);
    expect(loaded.length).toBeGreaterThan(3);
    // An inline script would be refused by the policy.
    expect(html).not.toMatch(/<script(?![^>]*\bsrc=)/);
    for (const path of loaded) {
      expect(path).toMatch(/^\//);
      const part = await fetch(ingest.url + path);
      expect([path, part.status]).toEqual([path, 200]);
      await part.arrayBuffer();
    }
    const initializer = await (await fetch(`${ingest.url}/docs/static/swagger-initializer.js`)).text();
    expect(initializer).toMatch(/validatorUrl"?:\s*null/);
    // Without the bar of Swagger UI.
    expect(initializer).toMatch(/layout"?:\s*"BaseLayout"/);
    expect(html).toMatch(/<title>weixin-media-archiver<\/title>/);
    expect(html).not.toMatch(/favicon/);
    expect(await (await fetch(`${ingest.url}/docs/json`)).json()).toEqual(document);
  });
});
