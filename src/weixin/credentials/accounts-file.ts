import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { appIdSchema, describeIssue } from '../../media/media-job.ts';
import { Secret } from '../../secret.ts';
import type { Account, AccountPush, Component, Credential, PushSettings, TokenService } from './account.ts';

/** Where WeChat Cloud Run mounts the token of an environment. */
const CLOUD_TOKEN_FILE = '/.tencentcloudbase/wx/cloudbase_access_token';

const INLINE_SECRET = 'a secret is {"env": "NAME"} or {"file": "PATH"}, never the value itself';

const secretReference = z.union(
  [z.strictObject({ env: z.string().min(1) }), z.strictObject({ file: z.string().min(1) })],
  { error: INLINE_SECRET },
);

type SecretReference = z.output<typeof secretReference>;

/** Names of headers whose value is a secret. */
const SECRET_HEADER = /auth|cookie|key|pass|secret|sign|token/i;

/** Names of query parameters whose value is one. */
const SECRET_PARAMETER = /(auth|authorization|key|pass|passwd|password|pwd|secret|sig|sign|signature|token)$/i;

/** What HTTP can carry. @see https://www.rfc-editor.org/rfc/rfc9110#section-5.5 */
const HEADER_VALUE = /^[\t\u0020-\u007e\u0080-\u00ff]*$/;

/** Of the connection, not of the question: the HTTP client sets them itself. */
const HEADERS_OF_HTTP = new Set([
  'connection',
  'content-length',
  'expect',
  'keep-alive',
  'transfer-encoding',
  'upgrade',
]);

const httpUrl = z
  .string()
  .refine((text) => URL.canParse(text) && /^https?:$/.test(new URL(text).protocol), {
    error: 'an http:// or https:// address',
    abort: true,
  })
  .refine((text) => !holdsSecret(new URL(text)), 'an address without a secret in it: put that into headers');

function holdsSecret({ username, password, searchParams }: URL): boolean {
  return username !== '' || password !== '' || [...searchParams.keys()].some((name) => SECRET_PARAMETER.test(name));
}

/** `data.access_token`: names, from the outside in. */
const jsonPath = z.string().regex(/^[^.]+(\.[^.]+)*$/, 'names separated by dots, as data.access_token');

const headersSchema = z
  .record(z.string(), z.union([secretReference, z.string()], { error: INLINE_SECRET }))
  .refine((headers) => areHeaderNames(Object.keys(headers)), 'names of headers of your own, each once')
  .refine(
    (headers) =>
      Object.entries(headers).every(([name, value]) => typeof value !== 'string' || !SECRET_HEADER.test(name)),
    INLINE_SECRET,
  );

function areHeaderNames(names: readonly string[]): boolean {
  const distinct = new Set(names.map((name) => name.toLowerCase()));
  return (
    distinct.size === names.length &&
    names.every((name) => /^[A-Za-z0-9-]{1,64}$/.test(name) && !HEADERS_OF_HTTP.has(name.toLowerCase()))
  );
}

const invalidateSchema = z.strictObject({
  url: httpUrl,
  method: z.enum(['POST', 'PUT', 'DELETE', 'GET']).default('POST'),
});

const credentialSchema = z.discriminatedUnion(
  'type',
  [
    z.strictObject({ type: z.literal('stable_token'), secret: secretReference }),
    z.strictObject({ type: z.literal('token'), secret: secretReference }),
    z.strictObject({ type: z.literal('authorizer'), component: appIdSchema, refreshToken: secretReference.optional() }),
    z
      .strictObject({
        type: z.literal('external'),
        url: httpUrl.optional(),
        headers: headersSchema.optional(),
        path: jsonPath.optional(),
        invalidate: invalidateSchema.optional(),
        redisKey: z.string().min(1).max(512).optional(),
      })
      .refine(
        ({ url, redisKey }) => (url === undefined) !== (redisKey === undefined),
        'either url or redisKey is expected',
      )
      .refine(
        ({ redisKey, headers, invalidate }) => redisKey === undefined || (headers ?? invalidate) === undefined,
        'headers and invalidate belong to url',
      ),
    z
      .strictObject({
        type: z.literal('cloud'),
        mode: z.enum(['sidecar', 'token-file'], { error: 'a mode is "sidecar" or "token-file"' }),
        fromAppId: z.boolean().optional(),
        tokenFile: z.string().min(1).optional(),
      })
      .refine(
        ({ mode, tokenFile }) => mode === 'token-file' || tokenFile === undefined,
        'tokenFile belongs to the mode token-file',
      ),
  ],
  { error: 'a credential type is "stable_token", "token", "authorizer", "external" or "cloud"' },
);

const signedPushSchema = z.strictObject({
  token: secretReference,
  encodingAesKey: secretReference.optional(),
  mode: z.enum(['plaintext', 'compatible', 'safe']).optional(),
});

const pushSchema = z.union([z.strictObject({ cloud: z.literal(true) }), signedPushSchema], {
  error: 'a push is { "token", "encodingAesKey" } by reference, or { "cloud": true }',
});

const accountsFileSchema = z.strictObject({
  accounts: z
    .array(z.strictObject({ appId: appIdSchema, credential: credentialSchema, push: pushSchema.optional() }))
    .default([]),
  components: z
    .array(
      z.strictObject({
        appId: appIdSchema,
        secret: secretReference,
        push: z.strictObject({ token: secretReference, encodingAesKey: secretReference }),
      }),
    )
    .default([]),
});

type FileCredential = z.output<typeof credentialSchema>;

/** The accounts and platforms, or one sentence a mistake. `envNames` are the variables that the file refers to. */
export interface ParsedAccounts {
  readonly accounts: readonly Account[];
  readonly components: readonly Component[];
  readonly mistakes: readonly string[];
  readonly envNames: readonly string[];
}

/**
 * Reads WEIXIN_ACCOUNTS_FILE and the secrets it refers to. Paths in it are relative to the working directory. Never
 * throws and never repeats a secret.
 */
export function readAccountsFile(path: string, env: Readonly<Record<string, string | undefined>>): ParsedAccounts {
  const none = { accounts: [], components: [], envNames: [] };
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    return { ...none, mistakes: [`can't be read as JSON (${nameOf(error)})`] };
  }
  const parsed = accountsFileSchema.safeParse(json);
  if (!parsed.success) return { ...none, mistakes: parsed.error.issues.map(describeMistake) };

  const mistakes: string[] = [];
  const envNames: string[] = [];
  const appIds = new Set<string>();
  /** Reads a secret; after a mistake any value will do, since the mistake ends the run. */
  const secretAt = (place: string, reference: SecretReference): Secret => {
    if ('env' in reference) envNames.push(reference.env);
    const secret = readSecret(reference, env);
    if (typeof secret !== 'string') return secret;
    mistakes.push(`${place}: ${secret}`);
    return new Secret('');
  };
  const headerAt = (place: string, value: SecretReference | string): Secret => {
    const secret = typeof value === 'string' ? new Secret(value) : secretAt(place, value);
    if (!HEADER_VALUE.test(secret.reveal()))
      mistakes.push(`${place}: a value of a header is one line of Latin letters`);
    return secret;
  };
  const noteAppId = (place: string, appId: string): void => {
    if (appIds.has(appId)) mistakes.push(`${place}.appId: ${appId} is there twice`);
    appIds.add(appId);
  };
  const pushAt = (place: string, push: z.output<typeof signedPushSchema>): PushSettings => {
    const encodingAesKey =
      push.encodingAesKey === undefined ? undefined : secretAt(`${place}.encodingAesKey`, push.encodingAesKey);
    if (encodingAesKey !== undefined && !/^([A-Za-z0-9]{43})?$/.test(encodingAesKey.reveal()))
      mistakes.push(`${place}.encodingAesKey: an EncodingAESKey is 43 characters of A-Z, a-z and 0-9`);
    if (encodingAesKey === undefined && push.mode !== undefined && push.mode !== 'plaintext')
      mistakes.push(`${place}.encodingAesKey: is missing, since the mode is ${push.mode}`);
    const mustBeEncrypted = push.mode === 'safe' || push.mode === 'compatible';
    const token = secretAt(`${place}.token`, push.token);
    return { token, mustBeEncrypted, ...(encodingAesKey === undefined ? {} : { encodingAesKey }) };
  };

  const components = parsed.data.components.map(({ appId, secret, push }, index): Component => {
    const place = `components.${index}`;
    noteAppId(place, appId);
    return {
      appId,
      secret: secretAt(`${place}.secret`, secret),
      push: { ...pushAt(`${place}.push`, push), mustBeEncrypted: true },
    };
  });
  const cloudApps = parsed.data.accounts.filter(({ credential }) => credential.type === 'cloud').length;

  function credentialAt(place: string, credential: FileCredential): Credential | undefined {
    switch (credential.type) {
      case 'stable_token':
      case 'token':
        return { type: credential.type, secret: secretAt(`${place}.secret`, credential.secret) };
      case 'authorizer': {
        const component = components.find(({ appId }) => appId === credential.component);
        if (component === undefined) {
          mistakes.push(`${place}.component: ${credential.component} is not among the components`);
          return undefined;
        }
        const { refreshToken } = credential;
        return {
          type: 'authorizer',
          component,
          ...(refreshToken === undefined ? {} : { refreshToken: secretAt(`${place}.refreshToken`, refreshToken) }),
        };
      }
      case 'external': {
        const path = credential.path?.split('.');
        if (credential.redisKey !== undefined)
          return {
            type: 'external',
            source: { redisKey: credential.redisKey, ...(path === undefined ? {} : { path }) },
          };
        const headers = Object.entries(credential.headers ?? {}).map(([name, value]): [string, Secret] => [
          name.toLowerCase(),
          headerAt(`${place}.headers.${name}`, value),
        ]);
        const { url = '', invalidate } = credential;
        const source: TokenService = {
          url: new URL(url),
          headers: Object.fromEntries(headers),
          path: path ?? ['access_token'],
          ...(invalidate === undefined ? {} : { invalidate: { ...invalidate, url: new URL(invalidate.url) } }),
        };
        return { type: 'external', source };
      }
      case 'cloud': {
        const { mode, tokenFile = CLOUD_TOKEN_FILE, fromAppId } = credential;
        return { type: 'cloud', mode, tokenFile, namesApp: fromAppId ?? cloudApps > 1 };
      }
      default:
        return credential satisfies never;
    }
  }

  const accounts = parsed.data.accounts.flatMap(({ appId, credential: raw, push: rawPush }, index): Account[] => {
    const place = `accounts.${index}`;
    noteAppId(place, appId);
    const credential = credentialAt(`${place}.credential`, raw);
    if (credential === undefined) return [];
    const push: AccountPush | undefined =
      rawPush === undefined
        ? undefined
        : 'cloud' in rawPush
          ? { type: 'cloud' }
          : { type: 'signed', settings: pushAt(`${place}.push`, rawPush) };
    return [{ appId, credential, ...(push === undefined ? {} : { push }) }];
  });
  return mistakes.length > 0
    ? { accounts: [], components: [], mistakes, envNames }
    : { accounts, components, mistakes, envNames };
}

function describeMistake({ path, message }: z.core.$ZodIssue): string {
  return describeIssue({ path: path.length === 0 ? ['file'] : path, message });
}

/** Returns the secret, or what is wrong with the reference. */
function readSecret(reference: SecretReference, env: Readonly<Record<string, string | undefined>>): Secret | string {
  if ('env' in reference) {
    const value = env[reference.env];
    return value === undefined || value === '' ? `the variable ${reference.env} is not set` : new Secret(value);
  }
  try {
    const value = readFileSync(reference.file, 'utf8').trim();
    return value === '' ? `the file ${reference.file} is empty` : new Secret(value);
  } catch (error) {
    return `the file ${reference.file} can't be read (${nameOf(error)})`;
  }
}

/** The short name of a fault (`ENOENT`, `SyntaxError`); messages may quote the content of the file. */
function nameOf(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown';
  return 'code' in error && typeof error.code === 'string' ? error.code : error.name;
}
