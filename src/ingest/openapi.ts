import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import type { FastifyInstance, FastifySchema } from 'fastify';
import { z } from 'zod';
import type { Scope } from '../api-token.ts';
import { VERSION } from '../version.ts';
import { PROBLEM_TYPE } from './problem.ts';

/** Nothing from elsewhere, and no script or style but those of the page. */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  // Swagger UI sets styles by hand.
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

const DESCRIPTION = `Hands WeChat media in to be archived, tells where they are, and replays what could not be saved.

WeChat itself can push messages to \`/weixin/{appId}\`, and the events of a third-party platform to
\`/weixin/component/{componentAppId}\`: they are signed, ask for no token, and are described in \`docs/message-push.md\`.`;

/**
 * Describes the routes that are registered after it, at `/openapi.json` and as a page at `/docs`. Both are open: they hold
 * nothing but what is in the source.
 */
export async function describeRoutes(app: FastifyInstance): Promise<void> {
  // Requests are parsed by our own schemas; those of the routes are there to be read.
  app.setValidatorCompiler(() => () => true);
  app.setSerializerCompiler(() => (data) => JSON.stringify(data));
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'weixin-media-archiver',
        version: VERSION,
        description: DESCRIPTION,
        license: { name: 'MIT', identifier: 'MIT' },
      },
      servers: [{ url: '/' }],
      components: { securitySchemes: { token: { type: 'http', scheme: 'bearer' } } },
    },
  });
  app.get('/openapi.json', { schema: { hide: true } }, () => app.swagger());
  await app.register(swaggerUi, {
    routePrefix: '/docs',
    staticCSP: CONTENT_SECURITY_POLICY,
    // It would send the address of the document to a host that is not ours.
    // The other layout has a bar with the sign of Swagger UI, and a box that loads documents from anywhere.
    uiConfig: { validatorUrl: null, layout: 'BaseLayout' },
    theme: { title: 'weixin-media-archiver', favicon: [] },
  });
}

export interface RouteDescription {
  readonly summary: string;
  readonly description?: string;
  readonly tag: string;
  /** Absent for routes that are open. */
  readonly scope?: Scope;
  readonly params?: z.ZodType;
  readonly query?: z.ZodType;
  readonly body?: z.ZodType;
  /** What a request that succeeds is answered with, by status. */
  readonly answers: Readonly<
    Record<number, { readonly says: string; readonly schema?: z.ZodType; readonly type?: string }>
  >;
  /** The statuses of problems beside those that any request may meet. */
  readonly problems?: Readonly<Record<number, string>>;
}

const problemSchema = z.looseObject({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  requestId: z.string().optional(),
});

const GUARD_PROBLEMS = {
  401: 'no right token',
  429: 'more requests a second than API_RATE_LIMIT, or many wrong tokens from this address',
};

const BODY_PROBLEMS = {
  413: 'a body of more than 2 MiB',
  415: 'a body that is not application/json, or is compressed',
};

/** Puts what a route is into the words of OpenAPI. */
export function described({ summary, description, tag, scope, ...route }: RouteDescription): FastifySchema {
  const { params, query, body, answers, problems = {} } = route;
  const all = {
    ...(scope === undefined ? {} : { ...GUARD_PROBLEMS, 403: `a token without the scope ${scope}` }),
    ...(body === undefined ? {} : BODY_PROBLEMS),
    ...problems,
  };
  return {
    summary,
    ...(description === undefined ? {} : { description }),
    tags: [tag],
    ...(scope === undefined ? {} : { security: [{ token: [] }] }),
    ...(params === undefined ? {} : { params: jsonSchemaOf(params) }),
    ...(query === undefined ? {} : { querystring: jsonSchemaOf(query) }),
    ...(body === undefined ? {} : { body: jsonSchemaOf(body) }),
    response: {
      ...Object.fromEntries(
        Object.entries(answers).map(([status, { says, schema, type = 'application/json' }]) => [
          status,
          {
            description: says,
            content: { [type]: { schema: schema === undefined ? { type: 'string' } : jsonSchemaOf(schema) } },
          },
        ]),
      ),
      ...Object.fromEntries(
        Object.entries(all).map(([status, says]) => [
          status,
          { description: says, content: { [PROBLEM_TYPE]: { schema: jsonSchemaOf(problemSchema) } } },
        ]),
      ),
    },
  };
}

/** Else a page would make one up from the pattern, which is of any year. */
const EXAMPLE_TIME = '2026-06-15T12:00:00Z';

/** What comes out of a schema: where a text is turned into a number, that says more than the text. */
function jsonSchemaOf(schema: z.ZodType): object {
  const { $schema: _, ...json } = z.toJSONSchema(schema, {
    io: 'output',
    unrepresentable: 'any',
    override: ({ jsonSchema }) => {
      if (jsonSchema.format === 'date-time') jsonSchema.examples = [EXAMPLE_TIME];
    },
  });
  return json;
}
