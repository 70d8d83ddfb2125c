import { ReplyError } from 'ioredis';
import { TooFewReplicasError } from './replicated.ts';

/** The first words of Redis's refusals, and what to do. @see https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors */
const HINTS: Readonly<Record<string, string>> = {
  OOM: 'Redis is full: raise its maxmemory.',
  MISCONF: "Redis can't write to its disk: look into its log.",
  READONLY: 'This Redis is a replica: set REDIS_URL to the master.',
  NOPERM: 'The user of REDIS_URL may not do this: give it the right.',
  NOAUTH: 'Redis wants a password: put it into REDIS_URL.',
  LOADING: 'Redis is reading its data: try again in a moment.',
  BUSY: 'A script keeps Redis busy: try again in a moment.',
  CLUSTERDOWN: 'The Cluster is down: look at its nodes.',
};

/** What ioredis says of a connection that broke; it has no code for it. */
const BROKEN = [
  "Stream isn't writeable and enableOfflineQueue options is false",
  'Connection is closed.',
  'Reached the max retries per request limit',
];

/**
 * Says in a line what Redis has against a command, and what to do; `undefined` for what is no error of Redis. Never the
 * command itself, whose arguments may be secret.
 */
export function redisTrouble(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  if (BROKEN.some((text) => error.message.startsWith(text))) return 'the connection to Redis broke: check REDIS_URL';
  if (error instanceof TooFewReplicasError) return `too few replicas of Redis: ${error.message}`;
  if (!(error instanceof ReplyError)) return undefined;
  // A transaction says only that it was discarded; the cause is that of its first command.
  const [cause = error] = 'previousErrors' in error ? (error.previousErrors as readonly Error[]) : [];
  const [said = ''] = cause.message.split(/\n| script: |, with args /, 1);
  const hint = HINTS[said.split(' ', 1)[0] ?? ''];
  return `Redis refuses: ${said}${hint === undefined ? '' : ` (${hint})`}`;
}
