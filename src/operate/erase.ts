import { randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { orAbort } from '../abort.ts';
import { openDuck } from '../catalog/duck.ts';
import { added, type Certificate, readCertificate, writeCertificate } from '../catalog/erase-certificate.ts';
import { createWanted, type Wanted } from '../catalog/erase-wanted.ts';
import type { ConfigWithStore } from '../config.ts';
import type { Failure } from '../failure.ts';
import { stopOnSignals } from '../lifecycle.ts';
import { mediaIdSchema } from '../media/media-job.ts';
import { whileHeld } from '../redis/held-lease.ts';
import { type RewrittenFiles, rewriteFiles } from '../redis/rewrite-files.ts';
import { createBucketFiles } from '../store/bucket-files.ts';
import { readProtection } from '../store/bucket-rules.ts';
import { createS3Client } from '../store/s3-client.ts';
import { createS3Store } from '../store/s3-store.ts';
import { createVersionSweep } from '../store/version-sweep.ts';
import { iso, MINUTE, SECOND } from '../time.ts';
import { VERSION } from '../version.ts';
import { CommandError, EXIT } from './command-error.ts';
import { type Counts, createErasing, type Erasing, VERIFIED } from './erasing.ts';
import { checkAppId, wrongMediaId } from './media-name.ts';
import { openQueue } from './open-queue.ts';
import type { Output } from './output.ts';
import { textLines } from './text-lines.ts';
import { openWorkFolder } from './work-folder.ts';

export interface EraseOptions {
  readonly app: string;
  /** `-` reads it from standard input. */
  readonly openId?: string;
  readonly mediaIds?: readonly string[];
  /** One media_id a line; `-` is standard input. */
  readonly file?: string;
  readonly dryRun: boolean;
  readonly by: string;
  readonly note: string;
  /** The id of a certificate to go on with. */
  readonly continueId?: string;
  /** How long media that are being archived just now are waited for. */
  readonly waitMs: number;
}

/** How long the catalog process may take for what it is at. */
const LEASE_WAIT_MS = 15 * MINUTE;
/** As the catalog process: WORKER_LOCK_SECONDS where that is less. */
const MAX_LEASE_MS = 15 * SECOND;
const REWRITE_TIMEOUT_MS = 5 * MINUTE;
/** New media of the person, or what an attempt has left, may turn up once everything is looked through again. */
const MAX_ROUNDS = 3;
const CONNECTIONS = 32;
const MAX_LINE = 1_000;
const MAX_TOLD = 20;
/** Ours, and what is looked into. `probe/` is what doctor and workers try the store with. */
const KNOWN_FOLDERS = [...VERIFIED, 'erasures/', 'probe/'];

/** A certificate is written to the end: it counts what is gone already. */
const NEVER = new AbortController().signal;

/**
 * `erase`: removes a person, or some media, from the archive and the queue, and leaves a certificate. Exit 1 when something
 * was left, or when it was stopped: done again, it goes on.
 */
export async function erase(config: ConfigWithStore, options: EraseOptions, output: Output): Promise<number> {
  const wanted = await wantedOf(config, options);
  for (const text of [options.by, options.note]) {
    if (wanted.isIn(text))
      throw new CommandError('--by and --note lie in the certificate: they must not name what is erased', EXIT.usage);
  }
  const stop = stopOnSignals();
  let begunId: string | undefined;
  try {
    return await eraseWanted(config, options, wanted, output, stop.signal, (id) => {
      begunId = id;
    });
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    const how = begunId === undefined ? 'nothing was changed' : `do it again with --continue ${begunId}`;
    throw new CommandError(`stopped: ${how}`);
  } finally {
    stop.release();
  }
}

/** @param onBegun told the id of the certificate once it is written. */
async function eraseWanted(
  config: ConfigWithStore,
  options: EraseOptions,
  wanted: Wanted,
  output: Output,
  stop: AbortSignal,
  onBegun: (id: string) => void,
): Promise<number> {
  const { bucket, partSizeBytes } = config.store;
  await using queue = await openQueue(config);
  const { redis, keys } = queue;
  using client = disposable(createS3Client(config.store, CONNECTIONS));
  await using work = await openWorkFolder(config.catalog.folder, 'erase');
  const { folder } = work;
  using duck = await openDuck({ memoryBytes: config.catalog.memoryBytes, threads: 1, folder: join(folder, 'spill') });
  const files = createBucketFiles({ client, bucket, partSizeBytes });

  const { lock } = await readProtection(client, bucket, AbortSignal.any([stop, AbortSignal.timeout(MINUTE)]));
  if (lock !== undefined) {
    const mode = lock.mode === undefined ? 'on' : `in ${lock.mode.toLowerCase()} mode`;
    output.note(
      `Object Lock is ${mode} for this bucket: versions under retention can't be removed before it ends${lock.mode === 'COMPLIANCE' ? ', by anybody' : ''}`,
    );
  }

  using progress = output.progress('erase', 0);
  let [keysSeen, keysTold] = [0, 0];
  const onKey = (key: string, failed?: unknown): void => {
    keysSeen += 1;
    progress.total(keysSeen);
    progress.advance(1);
    if (options.dryRun) output.result({ wouldRemove: key }, () => key);
    if (failed === undefined) return;
    keysTold += 1;
    const { code, detail } = failed as Failure;
    if (keysTold <= MAX_TOLD)
      output.note(`${key} can't be removed: ${code}${detail === undefined ? '' : ` (${detail})`}`);
  };
  const erasing = createErasing(
    {
      redis,
      keys,
      files,
      sweep: createVersionSweep(client, bucket),
      store: createS3Store({ client, bucket, partSizeBytes }),
      duck,
      folder,
      flushRows: config.catalog.flushRows,
      mediaTtlMs: config.media.ttlMs,
      now: Date.now,
      waitMs: options.waitMs,
      onKey,
    },
    wanted,
  );

  if (options.dryRun) {
    await erasing.search(stop);
    const counts = presentOnly(await erasing.look(stop));
    progress.stop();
    output.result({ dryRun: true, media: wanted.mediaIds.size, wouldRemove: counts }, () =>
      Object.keys(counts).length === 0
        ? 'nothing was found'
        : `would erase ${wanted.mediaIds.size} media: ${countsText(counts)}`,
    );
    return EXIT.done;
  }

  let certificate = await begin();
  const write = async (more: Partial<Certificate>): Promise<void> => {
    certificate = { ...certificate, ...more };
    await writeCertificate(files, certificate, NEVER);
  };
  const left = await underLease(async (signal) => {
    await write({});
    onBegun(certificate.id);
    output.note(`certificate ${certificate.id}: if this breaks off, do it again with --continue ${certificate.id}`);
    return rounds(erasing, wanted, write, () => certificate, signal);
  });
  const redisFiles = await orAbort(rewriteFiles(redis, REWRITE_TIMEOUT_MS), stop);
  const isComplete = Object.keys(left).length === 0;
  const notSearched: string[] = [];
  for await (const name of files.folders('', stop)) if (!KNOWN_FOLDERS.includes(name)) notSearched.push(name);
  await write({
    status: isComplete ? 'complete' : 'incomplete',
    finishedAt: iso(Date.now()),
    left,
    verified: [...VERIFIED],
    notSearched,
    redisFiles,
  });
  progress.stop();
  output.result(certificate, () => certificateText(certificate, wanted.mediaIds.size));
  const hint = FILES_HINT[redisFiles];
  if (hint !== undefined) output.note(hint);
  for (const name of notSearched) output.note(`${name} is none of ours and was not looked through`);
  if (isComplete) return EXIT.done;
  for (const what of Object.keys(left)) if (LEFT_HINT[what] !== undefined) output.note(LEFT_HINT[what]);
  output.note(`not everything is gone: do it again with --continue ${certificate.id}`);
  return EXIT.failed;

  async function begin(): Promise<Certificate> {
    const { continueId, app, by, note, openId } = options;
    const selection = openId === undefined ? 'media-ids' : 'open-id';
    if (continueId !== undefined) {
      const before = await readCertificate(files, continueId, stop);
      if (before === undefined) throw new CommandError(`there is no certificate ${continueId}`, EXIT.usage);
      if (before.appId !== app || before.selection !== selection)
        throw new CommandError(`certificate ${continueId} is of another erasure`, EXIT.usage);
      return { ...before, status: 'open', finishedAt: null, runs: before.runs + 1 };
    }
    return {
      v: 1,
      id: randomUUID(),
      appId: app,
      selection,
      requestedAt: iso(Date.now()),
      finishedAt: null,
      status: 'open',
      by,
      note,
      runs: 1,
      removed: {},
      left: {},
      verified: [],
      notSearched: [],
      redisFiles: null,
      version: VERSION,
    };
  }

  /** Whoever changes files of the catalog holds its lease. */
  async function underLease<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const giveUpAt = performance.now() + LEASE_WAIT_MS;
    const leaseMs = Math.min(config.worker.lockMs, MAX_LEASE_MS);
    for (let isTold = false; ; isTold = true) {
      const done = await whileHeld(redis, keys.catalogLease, leaseMs, stop, work);
      if (done !== undefined) return done.value;
      if (performance.now() > giveUpAt)
        throw new CommandError('the catalog process does not come to an end: do it again later');
      if (!isTold) output.note('the catalog process is at work: waiting for it');
      await sleep(SECOND / 4, undefined, { signal: stop });
    }
  }
}

function disposable<T extends { destroy(): void }>(client: T): T & Disposable {
  return Object.assign(client, { [Symbol.dispose]: () => client.destroy() });
}

/** Removes, looks again, and removes what has come meanwhile. Returns what is left. */
async function rounds(
  erasing: Erasing,
  wanted: Wanted,
  write: (more: Partial<Certificate>) => Promise<void>,
  current: () => Certificate,
  signal: AbortSignal,
): Promise<Counts> {
  const onRemoved = (counts: Counts): Promise<void> => write({ removed: added(current().removed, counts) });
  await erasing.search(signal);
  for (let round = 1; ; round += 1) {
    const inTheWay = presentOnly(await erasing.remove(onRemoved, signal));
    const before = wanted.mediaIds.size;
    await erasing.search(signal);
    const left = { ...presentOnly(await erasing.look(signal)), ...inTheWay };
    const isNews = wanted.mediaIds.size > before;
    const isOver = Object.keys(left).length === 0 && !isNews;
    const isStuck = Object.keys(inTheWay).some((what) => what !== 'outboxNotRewritten');
    if (isOver || isStuck || round === MAX_ROUNDS) return left;
  }
}

/** What is to be erased, as the command says. @throws CommandError */
async function wantedOf(config: ConfigWithStore, options: EraseOptions): Promise<Wanted> {
  const { app, openId, mediaIds = [], file } = options;
  checkAppId(app);
  const ways = [openId !== undefined, mediaIds.length > 0, file !== undefined].filter(Boolean).length;
  if (ways !== 1) throw new CommandError('give one of --open-id, --media-id and --file', EXIT.usage);
  if (openId !== undefined) {
    const policy = config.media.openId;
    if (policy.type === 'none') {
      throw new CommandError(
        'ARCHIVE_OPEN_ID is none: nothing that is kept tells whose a media is, so nobody can be found by openId. ' +
          'Erase by --media-id. If another policy was in force before, run this with its ARCHIVE_OPEN_ID and key.',
        EXIT.usage,
      );
    }
    const [text = '', ...others] = openId === '-' ? await linesOf('-') : [openId.trim()];
    if (text === '') throw new CommandError('no openId was given', EXIT.usage);
    if (others.length > 0) throw new CommandError('give one openId: each person is erased by itself', EXIT.usage);
    return createWanted(app, text, policy.type === 'hmac' ? policy.key : undefined);
  }
  const wanted = createWanted(app, undefined);
  for (const mediaId of file === undefined ? mediaIds : await linesOf(file)) {
    if (!mediaIdSchema.safeParse(mediaId).success) throw wrongMediaId(mediaId.slice(0, 300));
    wanted.mediaIds.add(mediaId);
  }
  if (wanted.mediaIds.size === 0) throw new CommandError('no media_id was given', EXIT.usage);
  return wanted;
}

async function linesOf(path: string): Promise<string[]> {
  const lines: string[] = [];
  try {
    for await (const { text = '' } of textLines(path === '-' ? process.stdin : createReadStream(path), MAX_LINE)) {
      const trimmed = text.trim();
      if (trimmed !== '') lines.push(trimmed);
    }
  } catch (error) {
    if (error instanceof Error && 'syscall' in error)
      throw new CommandError(`${path} can't be read: ${error.message}`, EXIT.usage);
    throw error;
  }
  return lines;
}

function presentOnly(counts: Counts): Record<string, number> {
  return Object.fromEntries(Object.entries(counts).filter(([, count]) => count > 0));
}

function countsText(counts: Counts): string {
  return Object.entries(counts)
    .map(([what, count]) => `${count} ${WORDS[what] ?? what}`)
    .join(', ');
}

function certificateText({ id, status, removed, left }: Certificate, media: number): string {
  const what = Object.keys(removed).length === 0 ? 'nothing was found' : `${media} media: ${countsText(removed)}`;
  const rest = status === 'complete' ? 'nothing is left' : `left: ${countsText(left)}`;
  return `${status}: ${what}; ${rest}\ncertificate: erasures/${id}.json`;
}

const WORDS: Readonly<Record<string, string>> = {
  jobs: 'jobs',
  markers: 'markers in Redis',
  listed: 'entries of the list of dead letters',
  outboxEntries: 'entries of the outbox',
  media: 'media objects',
  derived: 'derived objects',
  annotations: 'annotations',
  deadLetters: 'dead letters',
  uploads: 'open uploads',
  versions: 'versions',
  manifestLines: 'lines of manifests',
  reports: 'reports of verifications',
  rows: 'rows of the catalog',
  catalogFiles: 'catalog files',
  hiddenVersions: 'hidden versions',
  redisKeys: 'keys in Redis',
  activeJobs: 'jobs that a worker has',
  lettersUnderWay: 'dead letters that somebody replays or discards',
  keysNotRemoved: 'keys that could not be removed',
  unreadableManifests: 'manifests that nobody can read',
};

const LEFT_HINT: Readonly<Record<string, string>> = {
  activeJobs: 'A worker is still at one of these media: do it again when it is done, or stop the worker.',
  keysNotRemoved: 'The store refuses to remove: grant s3:DeleteObject and s3:DeleteObjectVersion; see Object Lock.',
  lettersUnderWay: 'Somebody replays or discards one of these dead letters: do it again in two minutes.',
  unreadableManifests: 'A list in manifests/ is no gzip, so nobody knows what it names.',
  outboxNotRewritten: 'The outbox is too long to be written anew: run the catalog process, then do it again.',
};

const FILES_HINT: Readonly<Partial<Record<RewrittenFiles, string>>> = {
  refused:
    'Redis refuses BGREWRITEAOF or BGSAVE: its files on disk hold what was removed until it writes them anew by itself.',
  pending: 'Redis is still writing its files anew: until it has, they hold what was removed.',
};
