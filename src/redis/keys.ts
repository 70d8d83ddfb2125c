import { hash } from 'node:crypto';

/**
 * The keys of the state that the fleet shares, beside BullMQ's own. All begin with the prefix, a hash tag, so that
 * scripts and pipelines work on a Cluster.
 */
export interface RedisKeys {
  readonly prefix: string;
  /** SET of the apps that have a lane. */
  readonly lanes: string;
  /** STRING with expiry: the nearest deadline among the delayed jobs of a long lane. @see src/queue/queue-stats.ts */
  readonly nearest: (lane: string) => string;
  /** STRING with expiry: where a media lies, once it is archived. @see src/queue/archived-marker.ts */
  readonly archived: (jobId: string) => string;
  /** STREAM of what the catalog has to learn; STRING with expiry: held by the catalog process that works. */
  readonly outbox: string;
  readonly catalogLease: string;
  /** STRING with expiry: held by the process that derives files. */
  readonly deriveLease: string;
  /** ZSET of open dead letters by the time of death; HASH of their summaries. @see src/dead-letter/dead-letter-index.ts */
  readonly deadByTime: string;
  readonly deadRecords: string;
  /** STRING with expiry: an operator has decided that nothing more is to be done about this media. */
  readonly discarded: (jobId: string) => string;
  /** STRING with expiry: this media was erased and must not come back. Named by a hash. @see src/catalog/erase-tombstones.ts */
  readonly erased: (jobId: string) => string;
  /** STRING with expiry: held by whoever replays or discards a dead letter. */
  readonly replay: (jobId: string) => string;
  /** HASH of the closed gates by app. @see src/queue/gates.ts */
  readonly gates: string;
  /** STRING with expiry: held by the worker that looks at a closed gate. */
  readonly probe: (appId: string) => string;
  /** HASH: an app's access_token. @see src/weixin/credentials/token-record.ts */
  readonly token: (appId: string) => string;
  readonly tokenLease: (appId: string) => string;
  /** STRINGs with expiry: a token service has been told that WeChat rejects this token; has been told so lately. */
  readonly tokenRejected: (appId: string, generation: string) => string;
  readonly tokenRejections: (appId: string) => string;
  /** HASH with expiry: the latest component_verify_ticket of a platform. @see src/weixin/credentials/component-tickets.ts */
  readonly componentTicket: (componentAppId: string) => string;
  /** STRING with expiry: held while WeChat need not be asked again to push tickets. */
  readonly ticketRestart: (componentAppId: string) => string;
  /** HASH of a platform's authorisations by app. @see src/weixin/credentials/authorizations.ts */
  readonly authorizers: (componentAppId: string) => string;
  /** STRING: another one whenever an app comes to that hash, or its status changes. SET of the apps whose code waits. */
  readonly authorizersVersion: (componentAppId: string) => string;
  readonly pendingCodes: (componentAppId: string) => string;
  /** STRING with expiry: how far a look for the app through WeChat's list of accounts has come. */
  readonly listOffset: (appId: string) => string;
  /** STRING with expiry: held by whoever redeems an app's authorization code. */
  readonly redeeming: (appId: string) => string;
  /** HASH of counters of one minute, by app and outcome. @see src/queue/throughput.ts */
  readonly throughput: (minute: number) => string;
  /** STRING with expiry: one running worker. */
  readonly worker: (workerId: string) => string;
  /** SET of the ids of workers that have run lately. */
  readonly workers: string;
  /** ZSET of the apps that some worker has credentials for, by when it last said so. */
  readonly served: string;
}

export function redisKeys(prefix: string): RedisKeys {
  return {
    prefix,
    lanes: `${prefix}:lanes`,
    nearest: (lane) => `${prefix}:nearest:${lane}`,
    archived: (jobId) => `${prefix}:archived:${jobId}`,
    outbox: `${prefix}:outbox`,
    catalogLease: `${prefix}:catalog:lease`,
    deriveLease: `${prefix}:derive:lease`,
    deadByTime: `${prefix}:dead-letters`,
    deadRecords: `${prefix}:dead-letters:records`,
    discarded: (jobId) => `${prefix}:discarded:${jobId}`,
    erased: (jobId) => `${prefix}:erased:${hash('sha256', jobId)}`,
    replay: (jobId) => `${prefix}:replay:${jobId}`,
    gates: `${prefix}:gates`,
    probe: (appId) => `${prefix}:gates:probe:${appId}`,
    token: (appId) => `${prefix}:token:${appId}`,
    tokenLease: (appId) => `${prefix}:token:${appId}:lease`,
    tokenRejected: (appId, generation) => `${prefix}:token:${appId}:rejected:${generation}`,
    tokenRejections: (appId) => `${prefix}:token:${appId}:rejected`,
    componentTicket: (componentAppId) => `${prefix}:component:${componentAppId}:ticket`,
    ticketRestart: (componentAppId) => `${prefix}:component:${componentAppId}:ticket:restart`,
    authorizers: (componentAppId) => `${prefix}:component:${componentAppId}:authorizers`,
    authorizersVersion: (componentAppId) => `${prefix}:component:${componentAppId}:authorizers:version`,
    pendingCodes: (componentAppId) => `${prefix}:component:${componentAppId}:codes`,
    listOffset: (appId) => `${prefix}:token:${appId}:list-offset`,
    redeeming: (appId) => `${prefix}:token:${appId}:redeeming`,
    throughput: (minute) => `${prefix}:throughput:${minute}`,
    worker: (workerId) => `${prefix}:worker:${workerId}`,
    workers: `${prefix}:workers`,
    served: `${prefix}:served`,
  };
}
