/** What is read of a CPU profile of V8 (`node --cpu-prof`). */
export interface CpuProfile {
  readonly nodes: readonly ProfileNode[];
  /** Ids of nodes, one a sample. */
  readonly samples: readonly number[];
  /** Microseconds before each sample. */
  readonly timeDeltas: readonly number[];
  /** Microseconds by the clock of `process.hrtime`. */
  readonly startTime: number;
}

interface ProfileNode {
  readonly id: number;
  readonly callFrame: { readonly functionName: string; readonly url: string };
  readonly children?: readonly number[];
}

export interface Share {
  readonly owner: string;
  /** Of the samples in which there was something to do; 0 to 1. */
  readonly share: number;
}

const IDLE = '(idle)';
/** What has less is told together. */
const LEAST_SHARE = 0.005;
/** What V8 does by itself, by the names that it gives it. */
const BY_V8 = new Map([
  ['(garbage collector)', 'V8: garbage collection'],
  ['(program)', 'V8: no function of JavaScript'],
]);

/**
 * Whose a profile's samples are, the largest share first.
 *
 * A sample counts for the package of npm whose code it is in, for the first folder below `src`, or for hashing; what else
 * Node.js does counts for the one that called it last, or for Node.js where nobody did (its event loop, sockets that are
 * read). Samples are counted, not the time between them: a process that is stopped for a while has a long one.
 *
 * @param since which moment, in microseconds by the clock of `process.hrtime`.
 */
export function sharesOf({ nodes, samples, timeDeltas, startTime }: CpuProfile, since: number): Share[] {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const parents = new Map(nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id] as const)));
  const owners = new Map<number, string>();
  const find = (id: number | undefined): string => {
    const node = id === undefined ? undefined : byId.get(id);
    if (node === undefined) return 'Node.js by itself';
    const known = owners.get(node.id);
    if (known !== undefined) return known;
    const { functionName, url } = node.callFrame;
    const owner = BY_V8.get(functionName) ?? ownerOfUrl(url) ?? find(parents.get(node.id));
    owners.set(node.id, owner);
    return owner;
  };
  const counts = new Map<string, number>();
  let at = startTime;
  const busy = samples.filter((id, index) => {
    at += timeDeltas[index] ?? 0;
    return at >= since && byId.get(id)?.callFrame.functionName !== IDLE;
  });
  for (const id of busy) counts.set(find(id), (counts.get(find(id)) ?? 0) + 1);
  const shares = [...counts]
    .map(([owner, count]) => ({ owner, share: count / busy.length }))
    .sort((one, other) => other.share - one.share);
  const small = shares.filter(({ share }) => share < LEAST_SHARE);
  if (small.length === 0) return shares;
  const others = { owner: `${small.length} others`, share: small.reduce((sum, { share }) => sum + share, 0) };
  return [...shares.slice(0, shares.length - small.length), others];
}

function ownerOfUrl(url: string): string | undefined {
  if (url.startsWith('node:internal/crypto/')) return 'node:crypto';
  const packageName = /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(url)?.[1];
  if (packageName !== undefined) return packageName;
  return /.*\/(src(?:\/[^/]+)?|workers)\//.exec(url)?.[1];
}
