import { join } from 'node:path';
import { isExecutable } from './executable.ts';

/** What a tool may use up, beside time. */
export interface ToolLimits {
  /** Address space in bytes; absent for programs that reserve far more than they use, as Node.js does. */
  readonly memoryBytes?: number;
  /** The size of any file that it writes. */
  readonly fileBytes: number;
  /** Seconds of processor time: ends what runs on where nobody is left to kill it. */
  readonly cpuSeconds: number;
}

/**
 * Programs that confine the one they are given and become it, so that its process id stays theirs; each by its path.
 *
 * - `setpriv` (util-linux): it dies with us, and gains no privileges.
 * - `prlimit` (util-linux): its memory, files and processor time are limited. Without it, only ffmpeg's own `-max_alloc`,
 *   which counts single blocks, and our clock limit it.
 * - `nice` (coreutils): it runs when nobody else wants to, so that archiving is never delayed.
 */
export type Confinement = Readonly<Partial<Record<'setpriv' | 'prlimit' | 'nice', string>>>;

const CONFINERS = ['setpriv', 'prlimit', 'nice'] as const satisfies readonly (keyof Confinement)[];

/** Returns the command that runs `command` confined by what is there. */
export function confined(
  confinement: Confinement,
  command: readonly [string, ...string[]],
  { memoryBytes, fileBytes, cpuSeconds }: ToolLimits,
): readonly [string, ...string[]] {
  const { setpriv, prlimit, nice } = confinement;
  const memory = memoryBytes === undefined ? [] : [`--as=${memoryBytes}`];
  const [first, ...rest] = [
    ...(setpriv === undefined ? [] : [setpriv, '--pdeathsig', 'KILL', '--no-new-privs', '--']),
    ...(prlimit === undefined
      ? []
      : [prlimit, ...memory, `--fsize=${fileBytes}`, `--cpu=${cpuSeconds}`, '--core=0', '--']),
    ...(nice === undefined ? [] : [nice, '-n', '19']),
    ...command,
  ];
  return [first ?? command[0], ...rest];
}

/**
 * Finds the confiners that work here: a `setpriv` may be too old, or forbidden in a container. `works` tells whether a
 * harmless program ends well under a confinement.
 */
export async function findConfinement(
  folders: readonly string[],
  works: (confinement: Confinement) => Promise<boolean>,
): Promise<Confinement> {
  let found: Confinement = {};
  for (const name of CONFINERS) {
    for (const folder of folders) {
      const path = join(folder, name);
      if (!(await isExecutable(path))) continue;
      if (await works({ [name]: path })) found = { ...found, [name]: path };
      break;
    }
  }
  return found;
}
