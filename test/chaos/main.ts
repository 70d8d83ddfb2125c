/**
 * Lets real workers, a real Redis and an S3 server go through everything that can go wrong, at random, and then compares
 * every media that was accepted with what lies in the bucket.
 *
 *   npm run chaos -- [--minutes N] [--seed S] [--workers N] [--backlog N] [--ceph] [--json]
 *
 * Says on stderr what it does, and on stdout what it found. Ends with 1 if anything is not as it must be. With --ceph the
 * store is a real Ceph object gateway, installed when run as root, in place of the embedded one.
 */
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { provideRedisServer } from '../../src/demo/redis-server.ts';
import { MINUTE, SECOND } from '../../src/time.ts';
import { seededRandom } from '../queue/seeded-random.ts';
import { provideCeph, untilCephGateway } from '../support/ceph.ts';
import { runChaos } from './chaos.ts';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '5' },
    seed: { type: 'string', default: String(randomInt(1, 1_000_000)) },
    workers: { type: 'string', default: '3' },
    backlog: { type: 'string', default: '300' },
    ceph: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});

const startedAt = performance.now();
const note = (text: string): void => {
  const seconds = ((performance.now() - startedAt) / SECOND).toFixed(1);
  process.stderr.write(`${seconds.padStart(7)} s  ${text}\n`);
};

note(`seed ${values.seed}`);
const redisExecutable = await provideRedisServer(note);
if (values.ceph) await provideCeph(note);
await using ceph = values.ceph ? await untilCephGateway(note) : undefined;
const report = await runChaos({
  random: seededRandom(Number(values.seed)),
  durationMs: Number(values.minutes) * MINUTE,
  workers: Number(values.workers),
  backlog: Number(values.backlog),
  redisExecutable,
  ...(ceph === undefined ? {} : { gateway: ceph }),
  note,
});

if (values.json) {
  console.log(JSON.stringify({ seed: Number(values.seed), ...report }));
} else {
  const { findings, disturbances, deadLettered, ...numbers } = report;
  console.log(`seed ${values.seed}`);
  for (const [name, number] of Object.entries(numbers)) console.log(`${name}: ${number.toLocaleString('en')}`);
  for (const [reason, number] of Object.entries(deadLettered)) console.log(`dead letters, ${reason}: ${number}`);
  for (const [name, times] of Object.entries(disturbances)) console.log(`${times} × ${name}`);
  for (const { what, jobId, detail } of findings) console.log(`FOUND ${what} ${jobId ?? ''} ${detail ?? ''}`);
  console.log(findings.length === 0 ? 'nothing was lost and nothing is wrong' : `${findings.length} findings`);
}
process.exitCode = report.findings.length === 0 ? 0 : 1;
