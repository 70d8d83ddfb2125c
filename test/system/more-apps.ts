import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { OTHER_APP_ID } from '../support/jobs.ts';
import { type Environment, openStack, type Stack, type StackOptions } from '../support/stack.ts';

export const OTHER_APP_SECRET = 'the-secret-of-the-other-app';

/** A stack whose workers serve these apps too, with the other kind of token. */
export async function openStackWithApps(
  appIds: readonly string[],
  { env = {}, ...options }: StackOptions = {},
): Promise<Stack> {
  await using parts = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'weixin-media-accounts-'));
  parts.defer(() => rm(folder, { recursive: true, force: true }));
  const path = join(folder, 'accounts.json');
  const credential = { type: 'token', secret: { env: 'OTHER_APP_SECRET' } };
  await writeFile(path, JSON.stringify({ accounts: appIds.map((appId) => ({ appId, credential })) }));
  const accounts: Environment = { WEIXIN_ACCOUNTS_FILE: path, OTHER_APP_SECRET };
  const stack = parts.use(await openStack({ ...options, env: { ...accounts, ...env } }));
  for (const appId of appIds) stack.simulator.addApp({ appId, secret: OTHER_APP_SECRET });
  const moved = parts.move();
  return { ...stack, [Symbol.asyncDispose]: () => moved.disposeAsync() };
}

/** A stack whose workers serve a second app too, one with the other kind of token. */
export async function openStackOfTwoApps(options: StackOptions = {}): Promise<Stack> {
  return openStackWithApps([OTHER_APP_ID], options);
}
