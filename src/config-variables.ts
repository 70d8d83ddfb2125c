import { parseApiTokens } from './api-token.ts';
import {
  allowList,
  atLeast,
  bool,
  byteSize,
  filePath,
  hostList,
  integer,
  MIB,
  nonEmpty,
  number,
  oneOf,
  urlList,
  within,
} from './config-values.ts';
import { DEFAULT_MEDIA_TTL_MS } from './media/deadline.ts';
import { appIdSchema } from './media/media-job.ts';
import { parseRedisUrl } from './redis/redis-url.ts';
import { Secret } from './secret.ts';
import { PARTS_HELD } from './store/archive-store.ts';
import { DEFAULT_S3_TIMEOUTS } from './store/s3-client.ts';
import { HOUR, SECOND } from './time.ts';
import { isForwardUrl } from './weixin/push/forward-url.ts';

const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** How WeChat is told to push, by its console. */
const PUSH_MODES = ['plaintext', 'compatible', 'safe'] as const;

export const MAX_PORT = 65_535;

const MIN_PART_SIZE = 5 * MIB;

export interface Variable<T> {
  /** Returns `undefined` for a value that is not of the expected form. */
  readonly parse: (text: string) => T | undefined;
  readonly expected: string;
  readonly example: string;
  /** As it would be written in the environment; absent where there is no default. */
  readonly default?: string;
  readonly secret?: true;
}

function variable<T>(definition: Variable<T>): Variable<T> {
  return definition;
}

/** Every variable the program reads, beside the AWS SDK's own. `.env.example` and the README list the same. */
export const VARIABLES = {
  REDIS_URL: variable({
    parse: parseRedisUrl,
    expected: 'a redis:// or rediss:// address',
    example: 'redis://127.0.0.1:6379',
    default: 'redis://127.0.0.1:6379',
    secret: true,
  }),
  REDIS_SENTINELS: variable({
    parse: hostList,
    expected: 'host:port, separated by commas',
    example: 'sentinel-1:26379,sentinel-2:26379',
  }),
  REDIS_SENTINEL_MASTER: variable({
    parse: nonEmpty,
    expected: 'the name of the master',
    example: 'mymaster',
    default: 'mymaster',
  }),
  REDIS_CLUSTER_NODES: variable({
    parse: hostList,
    expected: 'host:port, separated by commas',
    example: 'redis-1:6379,redis-2:6379',
  }),
  REDIS_WAIT_REPLICAS: variable({
    parse: (text) => within(integer(text), 0, 10),
    expected: 'a whole number from 0 to 10',
    example: '1',
    default: '0',
  }),
  QUEUE_PREFIX: variable({
    parse: (text) => (/^[A-Za-z0-9_{}.-]+$/.test(text) ? text : undefined),
    expected: 'letters, digits and _ - . { }',
    example: '{weixin-media}',
    default: '{weixin-media}',
  }),
  ARCHIVE_BUCKET: variable({
    parse: (text) => (/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(text) ? text : undefined),
    expected: 'the name of an S3 bucket',
    example: 'weixin-media',
  }),
  ARCHIVE_PART_SIZE: variable({
    parse: (text) => atLeast(byteSize(text), MIN_PART_SIZE),
    expected: 'a size of 5MiB or more',
    example: '8MiB',
    default: '8MiB',
  }),
  ARCHIVE_OPEN_ID: variable({
    parse: oneOf(['none', 'hmac', 'plain']),
    expected: 'none, hmac or plain',
    example: 'hmac',
  }),
  ARCHIVE_OPEN_ID_KEY: variable({
    parse: (text) => (text.length >= 16 ? new Secret(text) : undefined),
    expected: 'a secret of 16 characters or more',
    example: 'the output of `openssl rand -hex 32`',
    secret: true,
  }),
  S3_FORCE_PATH_STYLE: variable({ parse: bool, expected: 'true or false', example: 'true', default: 'false' }),
  S3_CONNECT_TIMEOUT_SECONDS: seconds(String(DEFAULT_S3_TIMEOUTS.connectMs / SECOND), 'until a connection stands'),
  S3_IDLE_TIMEOUT_SECONDS: seconds(String(DEFAULT_S3_TIMEOUTS.idleMs / SECOND), 'without a byte in either direction'),
  S3_RESPONSE_TIMEOUT_SECONDS: seconds(
    String(DEFAULT_S3_TIMEOUTS.responseMs / SECOND),
    'from the first byte of a request to the answer',
  ),
  WEIXIN_APP_ID: variable({
    parse: (text) => appIdSchema.safeParse(text).data,
    expected: '"wx" and 16 hexadecimal digits',
    example: 'wx0123456789abcdef',
  }),
  WEIXIN_APP_SECRET: variable({
    parse: (text) => new Secret(text),
    expected: 'the AppSecret of WEIXIN_APP_ID',
    example: '32 hexadecimal digits',
    secret: true,
  }),
  WEIXIN_PUSH_TOKEN: variable({
    parse: (text) => (/^[A-Za-z0-9]{3,32}$/.test(text) ? new Secret(text) : undefined),
    expected: '3 to 32 letters and digits, the Token of the message push of WEIXIN_APP_ID',
    example: 'the output of `openssl rand -hex 16`',
    secret: true,
  }),
  WEIXIN_PUSH_AES_KEY: variable({
    parse: (text) => (/^[A-Za-z0-9]{43}$/.test(text) ? new Secret(text) : undefined),
    expected: '43 letters and digits, the EncodingAESKey of the message push of WEIXIN_APP_ID',
    example: 'what the WeChat console shows',
    secret: true,
  }),
  WEIXIN_PUSH_MODE: variable({
    parse: oneOf(PUSH_MODES),
    expected: PUSH_MODES.join(', '),
    example: 'safe',
  }),
  WEIXIN_ACCOUNTS_FILE: variable({ parse: filePath, expected: 'the path of a JSON file', example: './accounts.json' }),
  WEIXIN_API_BASE_URL: variable({
    parse: urlList,
    expected: 'http(s) addresses, separated by commas',
    example: 'https://api.weixin.qq.com,https://api2.weixin.qq.com',
    default: 'https://api.weixin.qq.com',
  }),
  WEIXIN_DOWNLOAD_ALLOW_HOSTS: variable({
    parse: allowList,
    expected: 'host or host:port, separated by commas',
    example: '127.0.0.1',
  }),
  WEIXIN_FORWARD_URL: variable({
    parse: (text) => (isForwardUrl(text) ? text : undefined),
    expected: 'an http(s) address without user and password, with {appId} where the app belongs',
    example: 'http://127.0.0.1:3000/weixin/{appId}',
  }),
  WEIXIN_CONNECT_TIMEOUT_SECONDS: seconds('10', 'until a connection stands'),
  WEIXIN_RESPONSE_TIMEOUT_SECONDS: seconds('30', 'from the request to the response headers'),
  WEIXIN_IDLE_TIMEOUT_SECONDS: seconds('30', 'without a byte of the body'),
  WEIXIN_TOTAL_TIMEOUT_SECONDS: seconds('600', 'for one download from request to last byte'),
  MEDIA_TTL_HOURS: variable({
    parse: (text) => within(number(text), 0.01, 24 * 365),
    expected: 'hours, above 0',
    example: '72',
    default: String(DEFAULT_MEDIA_TTL_MS / HOUR),
  }),
  MEDIA_MAX_BYTES: variable({
    parse: (text) => atLeast(byteSize(text), 1),
    expected: 'a size',
    example: '512MiB',
    default: '512MiB',
  }),
  WORKER_PROCESSES: variable({
    parse: (text) => within(integer(text), 1, 64),
    expected: 'a whole number from 1 to 64',
    example: '4',
    default: '1',
  }),
  WORKER_CONCURRENCY: variable({
    parse: (text) => within(integer(text), 1, 1024),
    expected: 'a whole number from 1 to 1024',
    example: '32',
    default: '32',
  }),
  WORKER_MEMORY_BUDGET: variable({
    parse: (text) => atLeast(byteSize(text), PARTS_HELD * MIN_PART_SIZE),
    expected: `a size, ${PARTS_HELD} times ARCHIVE_PART_SIZE or more`,
    example: '256MiB',
    default: '256MiB',
  }),
  WORKER_LOCK_SECONDS: variable({
    parse: (text) => within(number(text), 1, 3600),
    expected: 'seconds, from 1 to 3600',
    example: '60',
    default: '60',
  }),
  SHUTDOWN_GRACE_SECONDS: variable({
    parse: (text) => within(number(text), 0, 3600),
    expected: 'seconds, from 0 to 3600',
    example: '30',
    default: '30',
  }),
  METRICS_HOST: variable({
    parse: nonEmpty,
    expected: 'an address to listen on',
    example: '0.0.0.0',
    default: '127.0.0.1',
  }),
  METRICS_PORT: variable({
    parse: (text) => within(integer(text), 0, MAX_PORT),
    expected: 'a port; 0 takes any free one',
    example: '9464',
    default: '9464',
  }),
  HTTP_HOST: variable({
    parse: nonEmpty,
    expected: 'an address to listen on',
    example: '0.0.0.0',
    default: '127.0.0.1',
  }),
  HTTP_PORT: variable({
    parse: (text) => within(integer(text), 0, MAX_PORT),
    expected: 'a port; 0 takes any free one',
    example: '8080',
    default: '8080',
  }),
  API_TOKENS: variable({
    parse: parseApiTokens,
    expected:
      'distinct tokens of 16 to 256 characters of A-Z a-z 0-9 - . _ ~ + / =, separated by commas, each as TOKEN or with scopes before it, such as ingest+read:TOKEN',
    example: 'the output of `openssl rand -hex 32`',
    secret: true,
  }),
  API_RATE_LIMIT: variable({
    parse: (text) => within(integer(text), 0, 1_000_000),
    expected: 'requests a second, a whole number; 0 for no limit',
    example: '2000',
    default: '2000',
  }),
  CATALOG_FLUSH_ROWS: variable({
    parse: (text) => within(integer(text), 1, 1_000_000),
    expected: 'a whole number from 1 to 1000000',
    example: '10000',
    default: '10000',
  }),
  CATALOG_FLUSH_SECONDS: seconds('60', 'that a row waits at most'),
  CATALOG_CLOSE_AFTER_HOURS: variable({
    parse: (text) => within(number(text), 0, 24 * 365),
    expected: 'hours after the last possible deadline of a day',
    example: '6',
    default: '6',
  }),
  CATALOG_MEMORY: variable({
    parse: (text) => atLeast(byteSize(text), 64 * MIB),
    expected: 'a size of 64MiB or more',
    example: '128MiB',
    default: '128MiB',
  }),
  CATALOG_FOLDER: variable({
    parse: nonEmpty,
    expected: 'the path of a folder for files on their way',
    example: '/var/tmp',
  }),
  LOG_LEVEL: variable({ parse: oneOf(LOG_LEVELS), expected: LOG_LEVELS.join(', '), example: 'info', default: 'info' }),
} as const;

export type VariableName = keyof typeof VARIABLES;

function seconds(defaultValue: string, meaning: string): Variable<number> {
  return {
    parse: (text) => within(number(text), 0.05, 86_400),
    expected: `seconds ${meaning}, above 0`,
    example: defaultValue,
    default: defaultValue,
  };
}
