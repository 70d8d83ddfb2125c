import { type EmbeddedS3, startEmbeddedS3 } from '../../src/demo/embedded-s3.ts';
import { createMediaProducer, type MediaProducer, QueueUnavailableError } from '../../src/index.ts';
import type { Random } from '../../src/time.ts';
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts';
import type { Stack, StackOptions } from '../support/stack.ts';
import { openStackOfTwoApps } from '../system/more-apps.ts';
import { type Cataloguer, startCataloguer } from './cataloguer.ts';
import { type Crew, startCrew } from './crew.ts';
import { MAX_BYTES, PART_SIZE_BYTES, type Wish } from './wishes.ts';

/** What was handed in, and what is known of it. */
export interface HandedIn {
  /** Redis has said that it has them: every one of these must be accounted for. */
  readonly accepted: Map<string, Wish>;
  /** Nobody knows whether they got in. */
  readonly unsure: Map<string, Wish>;
  /** Hands wishes in, for the first time or again. */
  push(wishes: readonly Wish[]): Promise<void>;
  /** How many pushes did nothing. */
  readonly duplicates: number;
  /** How many calls were refused or ran out of time. */
  readonly refusals: number;
}

/** Everything that can be disturbed, and what is at stake. */
export interface World extends AsyncDisposable {
  readonly stack: Stack;
  /** The way to the store. */
  readonly store: FaultProxy;
  readonly crew: Crew;
  readonly cataloguer: Cataloguer;
  readonly handedIn: HandedIn;
}

/** The secret key of the embedded store; another gateway has its own. */
const EMBEDDED_KEYS = { accessKeyId: 'chaos', secretAccessKey: 'the-secret-key-of-the-chaotic-store' };

export interface WorldOptions {
  readonly workers: number;
  readonly redisExecutable?: string;
  /** Another S3 server in place of the embedded one. */
  readonly gateway?: NonNullable<StackOptions['gateway']>;
}

export async function openWorld({ workers, redisExecutable, gateway }: WorldOptions): Promise<World> {
  await using parts = new AsyncDisposableStack();
  const target = gateway ?? (await embedded(parts));
  // What the embedded server does not do, the proxy does in its place.
  const standIn = gateway === undefined ? { checkPayload: true, lists: 'all' as const, createOnly: true } : {};
  const store = parts.use(await startFaultProxy(target.endpoint, { ...standIn, remember: false }));
  const stack = parts.use(
    await openStackOfTwoApps({
      ownRedis: true,
      ...(redisExecutable === undefined ? {} : { redisExecutable }),
      // Killed at any moment, it may lose nothing that it has accepted.
      redisArguments: ['--appendfsync', 'always'],
      gateway: { ...target, endpoint: store.endpoint },
      env: {
        ARCHIVE_PART_SIZE: String(PART_SIZE_BYTES),
        MEDIA_MAX_BYTES: String(MAX_BYTES),
        WORKER_CONCURRENCY: '16',
        WORKER_MEMORY_BUDGET: '128MiB',
        // What a dead worker held comes back soon.
        WORKER_LOCK_SECONDS: '2',
        SHUTDOWN_GRACE_SECONDS: '3',
        WEIXIN_CONNECT_TIMEOUT_SECONDS: '2',
        WEIXIN_RESPONSE_TIMEOUT_SECONDS: '2',
        WEIXIN_IDLE_TIMEOUT_SECONDS: '2',
      },
    }),
  );
  const producer = createMediaProducer({
    redisUrl: stack.redisServer().url,
    prefix: stack.config.redis.prefix,
  });
  parts.defer(() => producer.close());
  const crew = parts.use(startCrew(stack, workers));
  const cataloguer = parts.use(startCataloguer(stack));
  const moved = parts.move();
  return {
    stack,
    store,
    crew,
    cataloguer,
    handedIn: handIn(producer),
    [Symbol.asyncDispose]: () => moved.disposeAsync(),
  };
}

async function embedded(parts: AsyncDisposableStack): Promise<NonNullable<StackOptions['gateway']>> {
  const s3: EmbeddedS3 = parts.use(await startEmbeddedS3('unused'));
  return { endpoint: s3.endpoint, ...EMBEDDED_KEYS };
}

function handIn(producer: MediaProducer): HandedIn {
  const accepted = new Map<string, Wish>();
  const unsure = new Map<string, Wish>();
  let duplicates = 0;
  let refusals = 0;
  return {
    accepted,
    unsure,
    get duplicates() {
      return duplicates;
    },
    get refusals() {
      return refusals;
    },
    push: async (wishes) => {
      for (const wish of wishes) if (!accepted.has(wish.jobId)) unsure.set(wish.jobId, wish);
      try {
        const admission = await producer.enqueueMany(wishes.map(({ job }) => job));
        duplicates += admission.duplicates;
        if (admission.rejected.length > 0)
          throw new Error(`a valid job was rejected: ${admission.rejected[0]?.mistakes}`);
      } catch (error) {
        if (!(error instanceof QueueUnavailableError)) throw error;
        refusals += 1;
        return;
      }
      for (const wish of wishes) {
        unsure.delete(wish.jobId);
        accepted.set(wish.jobId, wish);
      }
    },
  };
}

/** Some of the values, chosen by chance. */
export function someOf<T>(values: Iterable<T>, count: number, random: Random): T[] {
  const all = [...values];
  const chosen: T[] = [];
  for (let left = Math.min(count, all.length); left > 0; left -= 1) {
    chosen.push(...all.splice(Math.floor(random() * all.length), 1));
  }
  return chosen;
}
