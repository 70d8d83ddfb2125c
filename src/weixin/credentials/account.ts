import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { appIdSchema, describeIssue } from '../../media/media-job.ts';
import { Secret } from '../../secret.ts';

/**
 * How an app proves itself to WeChat.
 *
 * - `stable_token`: POST /cgi-bin/stable_token; asking again gives the same token. The right choice.
 * - `token`: GET /cgi-bin/token; every call issues a new token and retires the one before. For apps that already
 *   depend on it. Never use both for one app.
 */
export type Credential =
  | { readonly type: 'stable_token'; readonly secret: Secret }
  | { readonly type: 'token'; readonly secret: Secret };

export interface Account {
  readonly appId: string;
  readonly credential: Credential;
}

const secretReference = z.union(
  [z.strictObject({ env: z.string().min(1) }), z.strictObject({ file: z.string().min(1) })],
  {
    error: 'a secret is {"env": "NAME"} or {"file": "PATH"}, never the value itself',
  },
);

const accountsFileSchema = z.strictObject({
  accounts: z.array(
    z.strictObject({
      appId: appIdSchema,
      credential: z.discriminatedUnion(
        'type',
        [
          z.strictObject({ type: z.literal('stable_token'), secret: secretReference }),
          z.strictObject({ type: z.literal('token'), secret: secretReference }),
        ],
        { error: 'a credential type is "stable_token" or "token"' },
      ),
    }),
  ),
});

/** The accounts, or one sentence a mistake. `envNames` are the variables that the file refers to. */
export interface ParsedAccounts {
  readonly accounts: readonly Account[];
  readonly mistakes: readonly string[];
  readonly envNames: readonly string[];
}

/**
 * Reads WEIXIN_ACCOUNTS_FILE and the secrets it refers to. Paths in it are relative to the working directory. Never
 * throws and never repeats a secret.
 */
export function readAccountsFile(path: string, env: Readonly<Record<string, string | undefined>>): ParsedAccounts {
  const none = { accounts: [], envNames: [] };
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    return { ...none, mistakes: [`can't be read as JSON (${nameOf(error)})`] };
  }
  const parsed = accountsFileSchema.safeParse(json);
  if (!parsed.success) return { ...none, mistakes: parsed.error.issues.map(describeIssue) };

  const accounts: Account[] = [];
  const mistakes: string[] = [];
  const envNames: string[] = [];
  for (const [index, { appId, credential }] of parsed.data.accounts.entries()) {
    if (accounts.some((account) => account.appId === appId))
      mistakes.push(`accounts.${index}.appId: ${appId} is there twice`);
    if ('env' in credential.secret) envNames.push(credential.secret.env);
    const secret = readSecret(credential.secret, env);
    if (typeof secret === 'string') mistakes.push(`accounts.${index}.credential.secret: ${secret}`);
    else accounts.push({ appId, credential: { type: credential.type, secret } });
  }
  return { accounts, mistakes, envNames };
}

/** Returns the secret, or what is wrong with the reference. */
function readSecret(
  reference: z.output<typeof secretReference>,
  env: Readonly<Record<string, string | undefined>>,
): Secret | string {
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
