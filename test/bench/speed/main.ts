/**
 * Measures how fast media get from WeChat to the store, beside what else one would use, all in one run.
 *
 *   npm run bench -- [--size 64KiB,1MiB,mix] [--concurrency 64] [--rounds N] [--scale N] [--warm-up N]
 *                    [--part-size 8MiB] [--store sink|ceph] [--only floor,ours,…] [--out FOLDER]
 *                    [--node-options TEXT] [--profile] [--json]
 *
 * Sizes: 64KiB, 1MiB, 10MiB, 100MiB and mix (images of 50 to 500 KiB, short voice). Origin, store, Redis and each contender
 * are processes of their own; the contenders take turns, so that a noisy moment does not strike one of them alone. The
 * origin is nginx with files, the sink an nginx that reads and forgets; `--store ceph` writes to a real gateway. Before it
 * is timed, each has archived `--warm-up` objects of 64 KiB: a worker runs for weeks, and what is compiled late is not what
 * it costs. rclone is not warmed: each of its runs is a process of its own. `--part-size` is the worker's ARCHIVE_PART_SIZE;
 * where four parts are more than the default WORKER_MEMORY_BUDGET, it has a budget of four parts. `--node-options` are the worker's NODE_OPTIONS. `--profile` leaves a CPU
 * profile of the worker in the folder, for the developer tools of a browser, and prints whose code it was in. Contenders:
 *
 *   floor       GET, SHA-256 and a PUT signed by hand over undici: the least that Node can do
 *   ours        the worker as it is shipped, from jobs in Redis to completed jobs and rows for the catalog
 *   rclone      Debian's rclone copies the same files; it neither hashes nor queues
 *   sdk-loop    client-s3 with Content-MD5, no queue
 *   sdk-script  a WeChat SDK and client-s3 in a BullMQ worker, as they come out of the box
 */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { arch, cpus, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { VARIABLES } from '../../../src/config-variables.ts';
import { provideRedisServer, startRedisServer } from '../../../src/demo/redis-server.ts';
import { oneOf, positiveNumber, positiveWholeNumber } from '../../../src/operate/option-parsers.ts';
import { provideCeph, untilCephGateway } from '../../support/ceph.ts';
import { benchOptions, listOf, variable } from '../bench-options.ts';
import { chartOf } from './chart.ts';
import { CONTENDERS, type Contender, type ContenderName, openContender, type Surroundings } from './contender.ts';
import { cpuTimeMs } from './cpu-time.ts';
import { provideProgram } from './debian-program.ts';
import { startOrigin, startSink } from './nginx.ts';
import { type CpuProfile, sharesOf } from './profile-shares.ts';
import { type Cell, median, type Round, ratiosOf } from './results.ts';
import { SMALL, WORKLOADS, type Workload } from './samples.ts';

const { values, read, refuse } = benchOptions('bench', {
  size: { type: 'string', default: '64KiB,1MiB,mix' },
  concurrency: { type: 'string', default: '64' },
  rounds: { type: 'string', default: '5' },
  scale: { type: 'string', default: '1' },
  'warm-up': { type: 'string', default: '6000' },
  'part-size': { type: 'string', default: '8MiB' },
  store: { type: 'string', default: 'sink' },
  only: { type: 'string', default: CONTENDERS.join(',') },
  out: { type: 'string', default: 'bench-results' },
  'node-options': { type: 'string', default: '' },
  profile: { type: 'boolean' },
  json: { type: 'boolean' },
});
const workloads = read('size', listOf(oneOf(WORKLOADS.map(({ name }) => name)))).flatMap((size) =>
  WORKLOADS.filter(({ name }) => name === size),
);
const names = read('only', listOf(oneOf(CONTENDERS))).flatMap((only) => CONTENDERS.filter((name) => name === only));
if (values.profile && !names.includes('ours')) refuse("option '--profile' is for 'ours', which '--only' leaves out");
const concurrencies = read('concurrency', listOf(variable(VARIABLES.WORKER_CONCURRENCY)));
const rounds = read('rounds', positiveWholeNumber);
const scale = read('scale', positiveNumber);
const warmUp = read('warm-up', positiveWholeNumber);
const partSizeBytes = read('part-size', variable(VARIABLES.ARCHIVE_PART_SIZE));
const storeName = read('store', oneOf(['sink', 'ceph']));
const note = (text: string): void => void process.stderr.write(`${text}\n`);

await using parts = new AsyncDisposableStack();
const folder = await mkdtemp(join(tmpdir(), 'weixin-media-bench-'));
parts.defer(() => rm(folder, { recursive: true, force: true, maxRetries: 5 }));
const nginx = await provideProgram('nginx', 'usr/sbin/nginx');
const rclone = names.includes('rclone') ? await provideProgram('rclone', 'usr/bin/rclone') : undefined;
const redis = parts.use(
  await startRedisServer(await provideRedisServer(note), { directory: join(folder, 'redis'), appendOnly: true }),
);
const origin = parts.use(await startOrigin(nginx, folder));
const store = storeName === 'ceph' ? await openCeph() : await openSink();

const cells: Cell[] = [];
/** No media is archived twice. */
let serial = 0;
for (const workload of workloads) {
  for (const concurrency of concurrencies) {
    const { cell, begunAt } = await measure(workload, concurrency);
    cells.push(cell);
    print(cell);
    if (values.profile) await printShares(cell, begunAt);
    // What is measured is kept, though a later one should break.
    await write();
  }
}
note(`\nwritten: ${join(values.out, 'bench.json')}, ${join(values.out, 'bench.svg')}`);

async function write(): Promise<void> {
  const machine = { node: process.version, cpu: cpus()[0]?.model, cores: cpus().length, arch: arch() };
  const nodeOptions = values['node-options'];
  const asked = { store: storeName, rounds, scale, warmUp, partSizeBytes, nodeOptions, only: names };
  const report = { date: new Date().toISOString(), ...machine, ...asked, cells };
  await mkdir(resolve(values.out), { recursive: true });
  await writeFile(resolve(values.out, 'bench.json'), `${JSON.stringify(report, null, 2)}\n`);
  await writeFile(resolve(values.out, 'bench.svg'), chartOf(cells));
}

/** `begunAt`: when the first round began, in microseconds by the clock of `process.hrtime`. */
async function measure(
  workload: Workload,
  concurrency: number,
): Promise<{ readonly cell: Cell; readonly begunAt: number }> {
  // A few at a time need fewer to take as long.
  const count = Math.ceil(workload.count * scale * Math.min(1, (concurrency + 8) / 40));
  const profiles = values.profile ? profilesOf(workload.name, concurrency) : undefined;
  // Of an earlier run.
  if (profiles !== undefined) await rm(profiles, { recursive: true, force: true });
  await using opened = new AsyncDisposableStack();
  const contenders = new Map<ContenderName, Contender>();
  const places: Surroundings = {
    ...store.places,
    origin: origin.url,
    redis: redis.url,
    concurrency,
    partSizeBytes,
    nodeOptions: values['node-options'],
    folder,
    ...(rclone === undefined ? {} : { rclone }),
    ...(profiles === undefined ? {} : { profiles }),
  };
  for (const name of names) {
    const contender = opened.use(await openContender(name, places));
    contenders.set(name, contender);
    if (name !== 'rclone') await contender.run(idsOf(SMALL, warmUp));
  }
  const begunAt = Number(process.hrtime.bigint() / 1_000n);
  const measured: Round[] = [];
  for (let round = 0; round < rounds; round += 1) {
    for (const [name, contender] of rotated([...contenders], round)) {
      const mediaIds = idsOf(workload, count);
      const before = othersMs();
      const { seconds, cpuMs } = await contender.run(mediaIds);
      const after = othersMs();
      const others = {
        redisMs: after.redis - before.redis,
        originMs: after.origin - before.origin,
        storeMs: after.store - before.store,
      };
      measured.push({
        contender: name,
        round,
        objects: count,
        bytes: bytesOf(workload, count),
        seconds,
        cpuMs,
        ...others,
      });
    }
  }
  return { cell: { size: workload.name, concurrency, rounds: measured }, begunAt };
}

function othersMs(): { redis: number; origin: number; store: number } {
  return {
    redis: cpuTimeMs(redis.process.pid ?? 0),
    origin: cpuTimeMs(origin.pid),
    store: store.pids.reduce((sum, pid) => sum + cpuTimeMs(pid), 0),
  };
}

function idsOf({ samples }: Workload, count: number): string[] {
  return Array.from({ length: count }, (_, index) => {
    serial += 1;
    return `${samples[index % samples.length]?.name ?? ''}-${serial}`;
  });
}

function bytesOf({ samples }: Workload, count: number): number {
  let bytes = 0;
  for (let index = 0; index < count; index += 1) bytes += samples[index % samples.length]?.sizeBytes ?? 0;
  return bytes;
}

function rotated<T>(items: readonly T[], by: number): T[] {
  const at = by % items.length;
  return [...items.slice(at), ...items.slice(0, at)];
}

interface Store {
  readonly pids: readonly number[];
  readonly places: Pick<Surroundings, 'store' | 'bucket' | 'accessKeyId' | 'secretAccessKey'>;
}

async function openSink(): Promise<Store> {
  const sink = parts.use(await startSink(nginx, folder));
  const places = { store: sink.url, bucket: 'bench', accessKeyId: 'bench', secretAccessKey: 'key-of-the-bench' };
  return { pids: [sink.pid], places };
}

async function openCeph(): Promise<Store> {
  await provideCeph(note);
  const { endpoint, accessKeyId, secretAccessKey, pids } = parts.use(await untilCephGateway(note));
  const credentials = { accessKeyId, secretAccessKey };
  const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true, credentials });
  await client.send(new CreateBucketCommand({ Bucket: 'bench' }));
  client.destroy();
  return { pids, places: { store: endpoint, bucket: 'bench', ...credentials } };
}

function print(cell: Cell): void {
  if (values.json) {
    console.log(JSON.stringify(cell));
    return;
  }
  console.log(`\n${cell.size}, ${cell.concurrency} at a time, to ${storeName} (medians of ${rounds} rounds)\n`);
  console.log('| | objects/s | MiB/s | CPU of its own, an object | Redis | origin | store |');
  console.log('|---|--:|--:|--:|--:|--:|--:|');
  for (const name of names) {
    const mine = cell.rounds.filter(({ contender }) => contender === name);
    const of = (pick: (round: Round) => number): number => median(mine.map(pick));
    const perObject = (pick: (round: Round) => number): string =>
      `${of((one) => pick(one) / one.objects).toFixed(2)} ms`;
    const columns = [
      name,
      Math.round(of((one) => one.objects / one.seconds)).toLocaleString('en'),
      of((one) => one.bytes / one.seconds / 2 ** 20).toFixed(0),
      perObject((one) => one.cpuMs),
      perObject((one) => one.redisMs),
      perObject((one) => one.originMs),
      perObject((one) => one.storeMs),
    ];
    console.log(`| ${columns.join(' | ')} |`);
  }
  const ratios = ratiosOf(cell);
  if (ratios.length === 0) return;
  console.log('\n| ratio, of each round | median | least | most | aim |');
  console.log('|---|--:|--:|--:|---|');
  for (const { name, median: middle, least, most, aim } of ratios) {
    const verdict = aim === undefined ? '' : `≥ ${aim}: ${middle >= aim ? 'met' : 'missed'}`;
    console.log(`| ${name} | ${middle.toFixed(2)} | ${least.toFixed(2)} | ${most.toFixed(2)} | ${verdict} |`);
  }
}

function profilesOf(size: string, concurrency: number): string {
  return resolve(values.out, 'profiles', `${size}-${concurrency}`);
}

async function printShares({ size, concurrency }: Cell, begunAt: number): Promise<void> {
  const profiles = profilesOf(size, concurrency);
  const [file] = (await readdir(profiles)).sort().slice(-1);
  if (file === undefined) return;
  const shares = sharesOf(JSON.parse(await readFile(join(profiles, file), 'utf8')) as CpuProfile, begunAt);
  if (values.json) {
    console.log(JSON.stringify({ size, concurrency, shares }));
    return;
  }
  console.log(`\n| whose code the worker was in, ${size} | |\n|---|--:|`);
  for (const { owner, share } of shares) console.log(`| ${owner} | ${(share * 100).toFixed(1)} % |`);
}
