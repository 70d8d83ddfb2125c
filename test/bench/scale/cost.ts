import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { enqueue, outboxEntries, untilEntries } from './backlog.ts';
import { openRig, type Rig, type Surroundings } from './rig.ts';

/** What a worker asks of Redis, and writes, for one archived media; means. */
export interface Cost {
  /** Commands that the worker sends, by name. */
  readonly commands: ReadonlyMap<string, number>;
  /** Commands that their scripts call. */
  readonly scripted: number;
  /** How often Redis reads what has come, about once for each write of the worker. */
  readonly reads: number;
  /** Bytes that Redis reads from its connections, and writes to them. */
  readonly receivedBytes: number;
  readonly sentBytes: number;
  /** What the append-only file grows by. */
  readonly appendedBytes: number;
  /** Names and values of its entry in the outbox. */
  readonly entryBytes: number;
  readonly logLines: number;
  readonly logBytes: number;
}

/** Rare, since what this bench asks of Redis is counted too. */
const LOOK_EVERY_MS = 250;
/** More than are archived between two looks. */
const LEAST_JOBS = 2_000;
/** Entries of the outbox that are looked at. */
const ENTRIES = 100;

/** What has been counted up to some moment. */
interface Counts {
  readonly archived: number;
  readonly reads: number;
  readonly receivedBytes: number;
  readonly sentBytes: number;
  readonly appendedBytes: number;
  readonly logLines: number;
  readonly logBytes: number;
}

/**
 * Counts what a worker costs that is warm and has enough to do, without a clock: three times `wanted` are archived, or three
 * times 2,000 where those are more.
 */
export async function measureCost(surroundings: Surroundings, wanted: number): Promise<Cost> {
  const jobs = Math.max(LEAST_JOBS, wanted);
  await using rig = await openRig(surroundings, 1);
  await enqueue(rig, 3 * jobs);
  const accepted = await outboxEntries(rig);
  rig.startWorker();
  await untilEntries(rig, accepted + jobs, LOOK_EVERY_MS);
  const before = await countsOf(rig);
  await untilEntries(rig, accepted + 2 * jobs, LOOK_EVERY_MS);
  const after = await countsOf(rig);
  const archived = after.archived - before.archived;
  if (archived === 0) throw new Error('all was archived between two looks: more jobs are needed');
  if (after.appendedBytes < before.appendedBytes)
    throw new Error('Redis has rewritten its append-only file: fewer jobs are needed');
  const per = (name: keyof Counts): number => (after[name] - before[name]) / archived;
  const entryBytes = await entryBytesOf(rig);
  return {
    // It is by itself, since Redis tells this bench of each command.
    ...(await commandsOf(rig, accepted + 3 * jobs)),
    reads: per('reads'),
    receivedBytes: per('receivedBytes'),
    sentBytes: per('sentBytes'),
    appendedBytes: per('appendedBytes'),
    entryBytes,
    logLines: per('logLines'),
    logBytes: per('logBytes'),
  };
}

async function countsOf(rig: Rig): Promise<Counts> {
  const archived = await outboxEntries(rig);
  const info = await rig.redis.info();
  const fact = (name: string): number => Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(info)?.[1]);
  const log = await readFile(join(rig.directory, 'worker.log'));
  return {
    archived,
    reads: fact('total_reads_processed'),
    receivedBytes: fact('total_net_input_bytes'),
    sentBytes: fact('total_net_output_bytes'),
    appendedBytes: fact('aof_current_size'),
    logLines: log.toString().split('\n').length - 1,
    logBytes: log.byteLength,
  };
}

/** The mean of the last entries. */
async function entryBytesOf({ redis, queue }: Rig): Promise<number> {
  const entries = await redis.xrevrange(queue.keys.outbox, '+', '-', 'COUNT', ENTRIES);
  return Buffer.byteLength(entries.flatMap(([, fields]) => fields).join('')) / entries.length;
}

/** As MONITOR tells: where a command came from, its name, and its first argument. */
const TOLD = /^\+\S+ \[\d+ (\S+)\] "(\w+)"(?: "([^"]*)")?/;

/** Has Redis tell of each command until the outbox has so many entries. */
async function commandsOf(rig: Rig, entries: number): Promise<Pick<Cost, 'commands' | 'scripted'>> {
  const { redis, redisUrl, queue } = rig;
  const mine = /\baddr=(\S+)/.exec(String(await redis.client('INFO')))?.[1];
  const { hostname, port } = new URL(redisUrl);
  const socket = connect(Number(port), hostname);
  using parts = new DisposableStack();
  parts.defer(() => socket.destroy());
  const lines = createInterface(socket);
  const { promise: broken, reject } = Promise.withResolvers<never>();
  // It passes on what becomes of the socket.
  lines.on('error', reject);
  socket.write('MONITOR\r\n');
  const calls = new Map<string, number>();
  let [scripted, archived] = [0, 0];
  lines.on('line', (line) => {
    const [, source, name = '', key] = TOLD.exec(line) ?? [];
    const command = name.toLowerCase();
    if (command === 'xadd' && key === queue.keys.outbox) archived += 1;
    if (source === 'lua') scripted += 1;
    else if (source !== undefined && source !== mine) calls.set(command, (calls.get(command) ?? 0) + 1);
  });
  // +OK
  await Promise.race([once(lines, 'line'), broken]);
  await Promise.race([untilEntries(rig, entries, LOOK_EVERY_MS), broken]);
  if (archived === 0) throw new Error('Redis has told of no archived media: more jobs are needed');
  const commands = [...calls].map(([name, count]) => [name, count / archived] as const);
  return { commands: new Map(commands), scripted: scripted / archived };
}
