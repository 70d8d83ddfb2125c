import { tmpdir } from 'node:os';
import { distance } from 'fastest-levenshtein';
import type { ApiToken } from './api-token.ts';
import { MIB } from './config-values.ts';
import { type LogLevel, MAX_PORT, VARIABLES, type Variable, type VariableName } from './config-variables.ts';
import { isLoopback } from './loopback.ts';
import type { OpenIdPolicy } from './media/open-id.ts';
import type { RedisConfig } from './redis/connect.ts';
import { PARTS_HELD } from './store/archive-store.ts';
import type { StoreConfig } from './store/s3-client.ts';
import { HOUR, SECOND } from './time.ts';
import type { Account, Component } from './weixin/credentials/account.ts';
import { readAccountsFile } from './weixin/credentials/accounts-file.ts';
import type { WeixinTimeouts } from './weixin/http.ts';

/** Everything a process needs to know, parsed once at start and frozen. Only this file reads the environment. */
export interface Config {
  readonly redis: RedisConfig;
  /** Absent where ARCHIVE_BUCKET is not set and the command does not need it. */
  readonly store?: StoreConfig;
  readonly accounts: readonly Account[];
  /** Third-party platforms. Apps that have authorised one need no account here. */
  readonly components: readonly Component[];
  readonly weixin: {
    readonly apiBaseUrls: readonly URL[];
    /** `host` or `host:port`, lower case. */
    readonly downloadAllowHosts: readonly string[];
    readonly timeouts: WeixinTimeouts;
    /** Where message pushes go on to; `{appId}` stands for the app. */
    readonly forwardUrl?: string;
  };
  readonly media: { readonly ttlMs: number; readonly maxBytes: number; readonly openId: OpenIdPolicy };
  readonly worker: {
    /** How many processes `worker` runs; all else here is of each of them. */
    readonly processes: number;
    readonly concurrency: number;
    readonly memoryBudgetBytes: number;
    readonly lockMs: number;
    readonly shutdownGraceMs: number;
    readonly metricsHost: string;
    /** Of the first process; each further one has the next. 0 takes any free one. */
    readonly metricsPort: number;
  };
  readonly ingest: {
    readonly host: string;
    readonly port: number;
    /** None: everything is allowed, to this machine alone. */
    readonly tokens: readonly ApiToken[];
    /** Requests a second with one token; 0 means no limit. */
    readonly rateLimit: number;
  };
  readonly catalog: {
    /** A flush takes about so many rows. */
    readonly flushRows: number;
    /** And a row waits at most so long for one. */
    readonly flushMs: number;
    /** How long after its last possible deadline a day is closed. */
    readonly closeAfterMs: number;
    /** For DuckDB's buffers. */
    readonly memoryBytes: number;
    /** For files on their way, on this machine's disk. */
    readonly folder: string;
  };
  readonly logLevel: LogLevel;
}

export type ConfigWithStore = Config & { readonly store: StoreConfig };

/** What a command can't do without, beyond Redis. `guard`: tokens, unless it is this machine alone that is listened to. */
export type ConfigNeed = 'store' | 'accounts' | 'guard';

/** One mistake in the environment, ready to be shown. `received` is `[redacted]` for secrets. */
export interface ConfigMistake {
  readonly variable: string;
  readonly received: string;
  readonly expected: string;
  readonly example?: string;
}

export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly mistakes: readonly ConfigMistake[];

  constructor(mistakes: readonly ConfigMistake[]) {
    const lines = mistakes.map(
      ({ variable, received, expected, example }) =>
        `  ${variable}: received ${received}; expected ${expected}${example === undefined ? '' : ` (for example ${example})`}`,
    );
    super(
      `${mistakes.length} ${mistakes.length === 1 ? 'mistake' : 'mistakes'} in the configuration:\n${lines.join('\n')}`,
    );
    this.mistakes = mistakes;
  }
}

const OWN_PREFIXES = /^(ARCHIVE|CATALOG|WEIXIN|WORKER)_/;

export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Parses the environment into one frozen value.
 *
 * @param needs what the caller can't work without.
 * @throws ConfigError with all mistakes but those that another one hides. An empty variable counts as not set.
 */
export function loadConfig(env: Environment, needs: readonly ['store', ...ConfigNeed[]]): ConfigWithStore;
export function loadConfig(env: Environment, needs?: readonly ConfigNeed[]): Config;
export function loadConfig(env: Environment, needs: readonly ConfigNeed[] = []): Config {
  const mistakes: ConfigMistake[] = [];

  function read<N extends VariableName>(name: N): ReturnType<(typeof VARIABLES)[N]['parse']> | undefined {
    const definition: Variable<unknown> = VARIABLES[name];
    const text = env[name] === undefined || env[name] === '' ? definition.default : env[name];
    if (text === undefined) return undefined;
    const value = definition.parse(text);
    if (value === undefined) {
      const { expected, example } = definition;
      mistakes.push({
        variable: name,
        received: definition.secret ? '[redacted]' : received(text),
        expected,
        example,
      });
    }
    return value as ReturnType<(typeof VARIABLES)[N]['parse']> | undefined;
  }

  /** A variable with a default: after a mistake any value will do, since the mistake ends the run. */
  function withDefault<N extends VariableName>(name: N): NonNullable<ReturnType<(typeof VARIABLES)[N]['parse']>> {
    const value = read(name) ?? VARIABLES[name].parse((VARIABLES[name] as Variable<unknown>).default ?? '');
    return value as NonNullable<ReturnType<(typeof VARIABLES)[N]['parse']>>;
  }

  const { accounts, components, envNames } = readAccounts(env, read, mistakes);
  if (needs.includes('accounts') && accounts.length + components.length === 0 && mistakes.length === 0) {
    mistakes.push(missing('WEIXIN_APP_ID', 'WEIXIN_APP_ID and WEIXIN_APP_SECRET, or WEIXIN_ACCOUNTS_FILE'));
  }

  const bucket = read('ARCHIVE_BUCKET');
  const forcePathStyle = withDefault('S3_FORCE_PATH_STYLE');
  if (needs.includes('store') && !env['ARCHIVE_BUCKET']) {
    mistakes.push(missing('ARCHIVE_BUCKET', VARIABLES.ARCHIVE_BUCKET.expected));
  }

  const storeTimeouts = {
    connectMs: withDefault('S3_CONNECT_TIMEOUT_SECONDS') * SECOND,
    idleMs: withDefault('S3_IDLE_TIMEOUT_SECONDS') * SECOND,
    responseMs: withDefault('S3_RESPONSE_TIMEOUT_SECONDS') * SECOND,
  };

  const prefix = withDefault('QUEUE_PREFIX');
  const clusterNodes = read('REDIS_CLUSTER_NODES');
  const sentinels = read('REDIS_SENTINELS');
  if (clusterNodes !== undefined && !/\{[^}]+\}/.test(prefix)) {
    mistakes.push({
      variable: 'QUEUE_PREFIX',
      received: JSON.stringify(prefix),
      expected: 'a hash tag in braces, since REDIS_CLUSTER_NODES is set',
      example: '{weixin-media}',
    });
  }

  const waitReplicas = withDefault('REDIS_WAIT_REPLICAS');
  if (clusterNodes !== undefined && waitReplicas > 0) {
    mistakes.push({
      variable: 'REDIS_WAIT_REPLICAS',
      received: JSON.stringify(env['REDIS_WAIT_REPLICAS']),
      expected: '0, since REDIS_CLUSTER_NODES is set: a Cluster can not be waited for',
      example: '0',
    });
  }

  const partSizeBytes = withDefault('ARCHIVE_PART_SIZE');
  const memoryBudgetBytes = withDefault('WORKER_MEMORY_BUDGET');
  if (memoryBudgetBytes < PARTS_HELD * partSizeBytes) {
    mistakes.push({
      variable: 'WORKER_MEMORY_BUDGET',
      received: JSON.stringify(env['WORKER_MEMORY_BUDGET'] || VARIABLES.WORKER_MEMORY_BUDGET.default),
      expected: VARIABLES.WORKER_MEMORY_BUDGET.expected,
      example: `${Math.ceil((PARTS_HELD * partSizeBytes) / MIB)}MiB`,
    });
  }

  const processes = withDefault('WORKER_PROCESSES');
  const metricsPort = withDefault('METRICS_PORT');
  const lastFirstPort = MAX_PORT - processes + 1;
  if (metricsPort > lastFirstPort) {
    mistakes.push({
      variable: 'METRICS_PORT',
      received: JSON.stringify(env['METRICS_PORT']),
      expected: `${lastFirstPort} or less, since WORKER_PROCESSES is ${processes} and each has a port`,
      example: VARIABLES.METRICS_PORT.example,
    });
  }

  const forwardUrl = read('WEIXIN_FORWARD_URL');
  const httpHost = withDefault('HTTP_HOST');
  const tokens = read('API_TOKENS');
  if (needs.includes('guard') && !env['API_TOKENS'] && !isLoopback(httpHost)) {
    mistakes.push(missing('API_TOKENS', `a token, since HTTP_HOST ${JSON.stringify(httpHost)} lets other machines in`));
  }

  const config: Config = {
    redis: {
      url: withDefault('REDIS_URL'),
      prefix,
      sentinelMaster: withDefault('REDIS_SENTINEL_MASTER'),
      waitReplicas,
      ...(sentinels === undefined ? {} : { sentinels }),
      ...(clusterNodes === undefined ? {} : { clusterNodes }),
    },
    ...(bucket === undefined
      ? {}
      : { store: { bucket, partSizeBytes, forcePathStyle, timeouts: storeTimeouts, ...awsFacts(env, mistakes) } }),
    accounts,
    components,
    weixin: {
      apiBaseUrls: withDefault('WEIXIN_API_BASE_URL'),
      downloadAllowHosts: read('WEIXIN_DOWNLOAD_ALLOW_HOSTS') ?? [],
      timeouts: {
        connectMs: withDefault('WEIXIN_CONNECT_TIMEOUT_SECONDS') * SECOND,
        responseMs: withDefault('WEIXIN_RESPONSE_TIMEOUT_SECONDS') * SECOND,
        idleMs: withDefault('WEIXIN_IDLE_TIMEOUT_SECONDS') * SECOND,
        totalMs: withDefault('WEIXIN_TOTAL_TIMEOUT_SECONDS') * SECOND,
      },
      ...(forwardUrl === undefined ? {} : { forwardUrl }),
    },
    media: {
      ttlMs: withDefault('MEDIA_TTL_HOURS') * HOUR,
      maxBytes: withDefault('MEDIA_MAX_BYTES'),
      openId: readOpenIdPolicy(env, read, mistakes),
    },
    worker: {
      processes,
      concurrency: withDefault('WORKER_CONCURRENCY'),
      memoryBudgetBytes,
      lockMs: withDefault('WORKER_LOCK_SECONDS') * SECOND,
      shutdownGraceMs: withDefault('SHUTDOWN_GRACE_SECONDS') * SECOND,
      metricsHost: withDefault('METRICS_HOST'),
      metricsPort,
    },
    ingest: {
      host: httpHost,
      port: withDefault('HTTP_PORT'),
      tokens: tokens ?? [],
      rateLimit: withDefault('API_RATE_LIMIT'),
    },
    catalog: {
      flushRows: withDefault('CATALOG_FLUSH_ROWS'),
      flushMs: withDefault('CATALOG_FLUSH_SECONDS') * SECOND,
      closeAfterMs: withDefault('CATALOG_CLOSE_AFTER_HOURS') * HOUR,
      memoryBytes: withDefault('CATALOG_MEMORY'),
      folder: read('CATALOG_FOLDER') ?? tmpdir(),
    },
    logLevel: withDefault('LOG_LEVEL'),
  };

  mistakes.push(...unknownNames(env, envNames));
  if (mistakes.length > 0) throw new ConfigError(mistakes);
  return deepFreeze(config);
}

/** The environment of this process, with the variables of a `.env` file in the working directory where there is one. */
export function processEnvironment(): Environment {
  try {
    process.loadEnvFile();
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
  }
  // biome-ignore lint/style/noProcessEnv: the one place that reads it
  return process.env;
}

type Read = <N extends VariableName>(name: N) => ReturnType<(typeof VARIABLES)[N]['parse']> | undefined;

function readAccounts(
  env: Environment,
  read: Read,
  mistakes: ConfigMistake[],
): Pick<Config, 'accounts' | 'components'> & { readonly envNames: readonly string[] } {
  const appId = read('WEIXIN_APP_ID');
  const secret = read('WEIXIN_APP_SECRET');
  const path = read('WEIXIN_ACCOUNTS_FILE');
  if (appId !== undefined && secret === undefined)
    mistakes.push(missing('WEIXIN_APP_SECRET', VARIABLES.WEIXIN_APP_SECRET.expected));
  if (secret !== undefined && !env['WEIXIN_APP_ID'])
    mistakes.push(missing('WEIXIN_APP_ID', VARIABLES.WEIXIN_APP_ID.expected));
  const push = readPush(env, read, mistakes);
  if (push !== undefined && secret === undefined && !env['WEIXIN_APP_ID'])
    mistakes.push(missing('WEIXIN_APP_ID', `${VARIABLES.WEIXIN_APP_ID.expected}, since there is a WEIXIN_PUSH_TOKEN`));
  const single: Account[] =
    appId === undefined || secret === undefined
      ? []
      : [{ appId, credential: { type: 'stable_token', secret }, ...(push === undefined ? {} : { push }) }];
  if (path === undefined) return { accounts: single, components: [], envNames: [] };

  const file = readAccountsFile(path, env);
  for (const mistake of file.mistakes) {
    mistakes.push({
      variable: 'WEIXIN_ACCOUNTS_FILE',
      received: JSON.stringify(path),
      expected: `a file without this mistake: ${mistake}`,
    });
  }
  if ([...file.accounts, ...file.components].some((other) => other.appId === appId)) {
    mistakes.push({
      variable: 'WEIXIN_APP_ID',
      received: JSON.stringify(appId),
      expected: 'an app that WEIXIN_ACCOUNTS_FILE does not hold too',
    });
  }
  return { accounts: [...single, ...file.accounts], components: file.components, envNames: file.envNames };
}

/** How pushes of the one account are known; `undefined` where none are expected. */
function readPush(env: Environment, read: Read, mistakes: ConfigMistake[]): Account['push'] {
  const token = read('WEIXIN_PUSH_TOKEN');
  const encodingAesKey = read('WEIXIN_PUSH_AES_KEY');
  const mode = read('WEIXIN_PUSH_MODE');
  const mustBeEncrypted = mode === 'compatible' || mode === 'safe';
  if (mustBeEncrypted && encodingAesKey === undefined && !env['WEIXIN_PUSH_AES_KEY'])
    mistakes.push(
      missing('WEIXIN_PUSH_AES_KEY', `${VARIABLES.WEIXIN_PUSH_AES_KEY.expected}, since WEIXIN_PUSH_MODE is ${mode}`),
    );
  if (encodingAesKey !== undefined && token === undefined)
    mistakes.push(missing('WEIXIN_PUSH_TOKEN', `${VARIABLES.WEIXIN_PUSH_TOKEN.expected}, since there is a key`));
  if (token === undefined) return undefined;
  const settings = { token, mustBeEncrypted, ...(encodingAesKey === undefined ? {} : { encodingAesKey }) };
  return { type: 'signed', settings };
}

function readOpenIdPolicy(env: Environment, read: Read, mistakes: ConfigMistake[]): OpenIdPolicy {
  const key = read('ARCHIVE_OPEN_ID_KEY');
  const type = read('ARCHIVE_OPEN_ID') ?? (key === undefined ? 'none' : 'hmac');
  if (type !== 'hmac') return { type };
  if (key !== undefined) return { type, key };
  if (!env['ARCHIVE_OPEN_ID_KEY']) {
    mistakes.push(
      missing('ARCHIVE_OPEN_ID_KEY', `${VARIABLES.ARCHIVE_OPEN_ID_KEY.expected}, since ARCHIVE_OPEN_ID is hmac`),
    );
  }
  return { type: 'none' };
}

/** The two AWS variables that we look at ourselves: the SDK reads all of them, but demands a region of every store. */
function awsFacts(env: Environment, mistakes: ConfigMistake[]): { endpoint?: string; region?: string } {
  const variable = env['AWS_ENDPOINT_URL_S3'] ? 'AWS_ENDPOINT_URL_S3' : 'AWS_ENDPOINT_URL';
  const endpoint = env[variable];
  if (endpoint && !(URL.canParse(endpoint) && /^https?:$/.test(new URL(endpoint).protocol))) {
    const expected = 'an http:// or https:// address';
    mistakes.push({ variable, received: received(endpoint), expected, example: 'https://s3.example.com' });
  }
  const region = env['AWS_REGION'] || env['AWS_DEFAULT_REGION'];
  return { ...(endpoint ? { endpoint } : {}), ...(region ? { region } : {}) };
}

function unknownNames(env: Environment, allowed: readonly string[]): ConfigMistake[] {
  const known = Object.keys(VARIABLES);
  return Object.keys(env)
    .filter((name) => OWN_PREFIXES.test(name) && !known.includes(name) && !allowed.includes(name))
    .map((name) => {
      const nearest = known.toSorted((a, b) => distance(name, a) - distance(name, b))[0] ?? '';
      const suggestion = distance(name, nearest) <= Math.max(3, name.length / 4) ? `; did you mean ${nearest}?` : '';
      return {
        variable: name,
        received: 'a variable that this program does not know',
        expected: `a name from .env.example${suggestion}`,
      };
    });
}

function missing(name: VariableName, expected: string): ConfigMistake {
  return { variable: name, received: 'nothing', expected, example: VARIABLES[name].example };
}

/** A wrong value as it may be shown: what stands before an `@` may be a password, and a document may hold any. */
function received(text: string): string {
  if (/[{\n]/.test(text)) return '[redacted]';
  return JSON.stringify(text.replace(/^.*@/s, '[redacted]@'));
}

/** Freezes plain objects and arrays all the way down. Secrets and URLs guard themselves. */
function deepFreeze<T>(value: T): T {
  if (
    Array.isArray(value) ||
    (typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype)
  ) {
    for (const inner of Object.values(value)) deepFreeze(inner);
    Object.freeze(value);
  }
  return value;
}
