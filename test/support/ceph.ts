import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect, promisify } from 'node:util';
import { freePort } from '../../src/demo/redis-server.ts';

const run = promisify(execFile);
const PACKAGES = ['ceph-mon', 'ceph-osd', 'radosgw', 'ceph-common'];
const INSTALL_TIMEOUT_MS = 300_000;
const STEP_TIMEOUT_MS = 60_000;

/** A Ceph object gateway of our own, with everything below it, on loopback. */
export interface CephGateway extends AsyncDisposable {
  readonly endpoint: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** The processes of its daemons. */
  readonly pids: readonly number[];
  stop(): Promise<void>;
}

/** Installs Ceph from the distribution where it is missing. @throws Error when that can't be done. */
export async function provideCeph(note: (text: string) => void): Promise<void> {
  const installed = await run('radosgw', ['--version']).then(
    () => true,
    () => false,
  );
  if (installed) return;
  if (process.getuid?.() !== 0) throw new Error(`Ceph is needed: run \`sudo apt-get install ${PACKAGES.join(' ')}\``);
  note('installing Ceph from the distribution');
  const options = { timeout: INSTALL_TIMEOUT_MS, maxBuffer: 64 * 1024 * 1024 };
  await run('apt-get', ['update', '-qq'], options);
  await run('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...PACKAGES], options);
}

/**
 * Starts a gateway, over again where Ceph does not come up: now and then its OSD never reports to the monitor. How Ceph
 * boots is not what is tested.
 */
export async function untilCephGateway(note: (text: string) => void): Promise<CephGateway> {
  for (let left = 2; ; left -= 1) {
    try {
      return await startCephGateway();
    } catch (error) {
      if (left === 0) throw error;
      note(inspect(error));
    }
  }
}

/** One monitor, one OSD on a sparse file, one gateway, one user: what S3 needs of Ceph and nothing else. */
async function startCephGateway(): Promise<CephGateway> {
  await using parts = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'weixin-media-ceph-'));
  parts.defer(() => rm(directory, { recursive: true, force: true, maxRetries: 5 }));
  const at = (name: string): string => join(directory, name);
  for (const name of ['mon', 'osd', 'log', 'run']) await mkdir(at(name));
  const clusterId = crypto.randomUUID();
  const monitorPort = await freePort();
  const gatewayPort = await freePort();
  await writeFile(at('ceph.conf'), cephConf(directory, clusterId, monitorPort, gatewayPort));

  const ceph = async (command: string, args: readonly string[]): Promise<string> => {
    const options = { env: { ...pathOnly(), CEPH_CONF: at('ceph.conf') }, timeout: STEP_TIMEOUT_MS };
    return (await run(command, [...args], options)).stdout;
  };
  const pids: number[] = [];
  const daemon = async (name: string, command: string, args: readonly string[]): Promise<void> => {
    const log = await open(at(`log/${name}.out`), 'a');
    const child = spawn(command, [...args, '-f'], {
      env: { ...pathOnly(), CEPH_CONF: at('ceph.conf') },
      stdio: ['ignore', log.fd, log.fd],
    });
    await log.close();
    parts.defer(() => ended(child));
    pids.push(child.pid ?? 0);
  };

  const monitorKey = ['--create-keyring', at('keyring'), '--gen-key', '-n', 'mon.', '--cap', 'mon', 'allow *'];
  await ceph('ceph-authtool', monitorKey);
  const adminCaps = ['--cap', 'mon', 'allow *', '--cap', 'osd', 'allow *'];
  await ceph('ceph-authtool', [at('keyring'), '--gen-key', '-n', 'client.admin', ...adminCaps]);
  const monitor = ['--addv', 'a', `[v1:127.0.0.1:${monitorPort}]`];
  await ceph('monmaptool', ['--create', '--clobber', '--fsid', clusterId, ...monitor, at('monmap')]);
  await ceph('ceph-mon', ['--mkfs', '-i', 'a', '--monmap', at('monmap'), '--keyring', at('keyring')]);
  await daemon('mon', 'ceph-mon', ['-i', 'a']);
  await until('the monitor answers', () => ceph('ceph', ['--connect-timeout', '5', '-s']));

  const osdId = crypto.randomUUID();
  await ceph('ceph', ['osd', 'new', osdId]);
  await ceph('ceph-osd', ['-i', '0', '--mkfs', '--osd-uuid', osdId]);
  await ceph('ceph', ['osd', 'crush', 'add-bucket', 'here', 'host']);
  await ceph('ceph', ['osd', 'crush', 'move', 'here', 'root=default']);
  await ceph('ceph', ['osd', 'crush', 'add', 'osd.0', '1.0', 'root=default', 'host=here']);
  await daemon('osd', 'ceph-osd', ['-i', '0']);
  await until('the OSD is up', async () => {
    const stat = await ceph('ceph', ['osd', 'stat']);
    if (stat.includes('1 up')) return;
    const log = await readFile(at('log/osd.0.log'), 'utf8').catch(String);
    throw new Error(`${stat}\n${log.slice(-5_000)}`);
  });

  await daemon('rgw', 'radosgw', ['-n', 'client.rgw.a']);
  const endpoint = `http://127.0.0.1:${gatewayPort}`;
  await until('the gateway answers', () => fetch(endpoint).then((response) => response.arrayBuffer()));
  const keys = { accessKeyId: 'archiver', secretAccessKey: crypto.randomUUID() };
  const user = ['--uid=archiver', '--display-name=archiver'];
  const userKeys = [`--access-key=${keys.accessKeyId}`, `--secret=${keys.secretAccessKey}`];
  await ceph('radosgw-admin', ['-n', 'client.rgw.a', 'user', 'create', ...user, ...userKeys]);

  const moved = parts.move();
  const stop = (): Promise<void> => moved.disposeAsync();
  return { endpoint, ...keys, pids, stop, [Symbol.asyncDispose]: stop };
}

/** For daemons and commands: the search path with the folders that a plain user's lacks, and nothing else. */
function pathOnly(): Record<string, string> {
  return { PATH: `${process.env['PATH'] ?? ''}:/usr/local/sbin:/usr/sbin:/sbin` };
}

function cephConf(directory: string, clusterId: string, monitorPort: number, gatewayPort: number): string {
  return `[global]
fsid = ${clusterId}
mon_initial_members = a
mon_host = [v1:127.0.0.1:${monitorPort}]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data_avail_crit = 1
run_dir = ${directory}/run
pid_file = ${directory}/run/$type.$id.daemon
admin_socket = ${directory}/run/$cluster-$name.asok
log_file = ${directory}/log/$name.log
keyring = ${directory}/keyring
[mon]
mon_data = ${directory}/mon
[osd]
osd_data = ${directory}/osd
osd_objectstore = bluestore
bluestore_block_create = true
bluestore_block_size = 10737418240
osd_memory_target = 1073741824
[client.rgw.a]
rgw_frontends = beast endpoint=127.0.0.1:${gatewayPort}
`;
}

async function until(what: string, look: () => Promise<unknown>): Promise<void> {
  const giveUpAt = performance.now() + STEP_TIMEOUT_MS;
  for (;;) {
    try {
      await look();
      return;
    } catch (error) {
      if (performance.now() > giveUpAt) throw new Error(`Ceph has not come up, as ${what} is not so`, { cause: error });
      await sleep(100);
    }
  }
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  child.once('exit', () => resolve());
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await promise;
  clearTimeout(timer);
}
