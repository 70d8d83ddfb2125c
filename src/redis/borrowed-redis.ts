/** What is asked of a connection that somebody else has opened. @see https://github.com/redis/ioredis */
const METHODS = ['pipeline', 'multi', 'defineCommand', 'connect', 'once', 'off', 'ping', 'time', 'exists', 'mget'];

/**
 * Settings with which BullMQ writes to other keys than it reads, or takes one answer of Redis for another. All others are
 * borne: offline queue, retries without end, late or no ready check.
 */
const REFUSED: readonly [name: string, isSet: (value: unknown) => boolean][] = [
  ['keyPrefix', (value) => value !== undefined && value !== null && value !== ''],
  ['stringNumbers', (value) => value === true],
  ['replyMapping', (value) => value === 'resp3'],
];

/**
 * Says why a connection of somebody else's can't be used; `undefined` when it can.
 *
 * Judged by what it can do and not by its class: the caller's copy of ioredis may be another than ours.
 */
export function mistakeOfConnection(connection: unknown): string | undefined {
  const methods = METHODS.filter((name) => typeof member(connection, name) === 'function');
  if (methods.length < METHODS.length || typeof member(connection, 'status') !== 'string')
    return 'a Redis or Cluster of ioredis is expected';
  const own = member(connection, 'options');
  // A Cluster has them for itself, and others for its nodes.
  const all = [own, member(own, 'redisOptions')];
  const refused = REFUSED.find(([name, isSet]) => all.some((options) => isSet(member(options, name))));
  return refused === undefined ? undefined : `one without ${refused[0]} is expected`;
}

/** True for a Cluster, which has no one server that could be asked how many replicas hold something. */
export function isCluster(connection: unknown): boolean {
  return member(connection, 'isCluster') === true;
}

function member(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;
}
