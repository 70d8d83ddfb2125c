import { fileURLToPath } from 'node:url';

/**
 * For the environment of commands that tests start by the dozen: Node keeps what it has compiled, which halves what a
 * command costs.
 */
export const COMPILE_CACHE = {
  NODE_COMPILE_CACHE: fileURLToPath(new URL('../../node_modules/.cache/test-commands', import.meta.url)),
};
