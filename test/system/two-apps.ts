import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { OTHER_APP_ID } from '../support/jobs.ts';
import { type Environment, openStack, type Stack, type StackOptions } from '../support/stack.ts';

export const OTHER_APP_SECRET = 'the-secret-of-the-other-app';

/** A stack whose workers serve a second app too, one with the other kind of token. */
export async function openStackOfTwoApps({ env = {}, ...options }: StackOptions = {}): Promise<Stack> {
  await using parts = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'weixin-media-accounts-'));
  parts.defer(() => rm(folder, { recursive: true, force: true }));
  const path = join(folder, 'accounts.json');
  const credential = { type: 'token', secret: { env: 'OTHER_APP_SECRET' } };
  await writeFile(path, JSON.stringify({ accounts: [{ appId: OTHER_APP_ID, credential }] }));
  const accounts: Environment = { WEIXIN_ACCOUNTS_FILE: path, OTHER_APP_SECRET };
  const stack = parts.use(await openStack({ ...options, env: { ...accounts, ...env } }));
  stack.simulator.addApp({ appId: OTHER_APP_ID, secret: OTHER_APP_SECRET });
  const moved = parts.move();
  return { ...stack, [Symbol.asyncDispose]: () => moved.disposeAsync() };
}
