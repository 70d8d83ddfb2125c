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
  readonly logLines: number;
  readonly logBytes: number;
}

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

/** Counts what a worker costs that is warm and has enough to do, without a clock: three times `jobs` are archived. */
export async function measureCost(surroundings: Surroundings, jobs: number): Promise<Cost> {
  await using rig = await openRig(surroundings, 1);
  await enqueue(rig, 3 * jobs);
  const accepted = await outboxEntries(rig);
  rig.startWorker();
  await untilEntries(rig, accepted + jobs);
  const before = await countsOf(rig);
  await untilEntries(rig, accepted + 2 * jobs);
  const after = await countsOf(rig);
  const per = (name: keyof Counts): number => (after[name] - before[name]) / (after.archived - before.archived);
  return {
    // It is by itself, since Redis tells this bench of each command.
    ...(await commandsOf(rig, accepted + 3 * jobs)),
    reads: per('reads'),
    receivedBytes: per('receivedBytes'),
    sentBytes: per('sentBytes'),
    appendedBytes: per('appendedBytes'),
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

/** As MONITOR tells: where a command came from, its name, and its first argument. */
const TOLD = /^\+\S+ \[\d+ (\S+)\] "(\w+)"(?: "([^"]*)")?/;

/** Has Redis tell of each command until the outbox has so many entries. */
async function commandsOf(rig: Rig, entries: number): Promise<Pick<Cost, 'commands' | 'scripted'>> {
  const { redis, redisUrl, queue } = rig;
  const mine = /\baddr=(\S+)/.exec(String(await redis.client('INFO')))?.[1];
  const { hostname, port } = new URL(redisUrl);
  const socket = connect(Number(port), hostname);
  socket.write('MONITOR\r\n');
  const calls = new Map<string, number>();
  let [scripted, archived] = [0, 0];
  createInterface(socket).on('line', (line) => {
    const [, source, name = '', key] = TOLD.exec(line) ?? [];
    const command = name.toLowerCase();
    if (command === 'xadd' && key === queue.keys.outbox) archived += 1;
    if (source === 'lua') scripted += 1;
    else if (source !== undefined && source !== mine) calls.set(command, (calls.get(command) ?? 0) + 1);
  });
  await untilEntries(rig, entries);
  socket.destroy();
  const commands = [...calls].map(([name, count]) => [name, count / archived] as const);
  return { commands: new Map(commands), scripted: scripted / archived };
}
