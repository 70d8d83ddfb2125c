import { createHmac } from 'node:crypto';
import type { Secret } from '../secret.ts';
import type { MediaJob } from './media-job.ts';

/**
 * What is kept of a sender's openId.
 *
 * - `none`: nothing.
 * - `hmac`: a pseudonym, the same for the same person in the same app, that only the holder of the key can recompute.
 * - `plain`: the openId itself. An explicit choice of the operator.
 */
export type OpenIdPolicy =
  | { readonly type: 'none' }
  | { readonly type: 'hmac'; readonly key: Secret }
  | { readonly type: 'plain' };

const PSEUDONYM_PREFIX = 'hmac-sha256:';

/** Returns the job with its openId as the policy keeps it. Applying it twice changes nothing. */
export function applyOpenIdPolicy(job: MediaJob, policy: OpenIdPolicy): MediaJob {
  const openId = job.source?.openId;
  if (job.source === undefined || openId === undefined || policy.type === 'plain') return job;
  if (policy.type === 'hmac') {
    return openId.startsWith(PSEUDONYM_PREFIX)
      ? job
      : { ...job, source: { ...job.source, openId: pseudonymOf(job.appId, openId, policy.key) } };
  }
  const { openId: _dropped, ...source } = job.source;
  const { source: _replaced, ...rest } = job;
  return Object.keys(source).length === 0 ? rest : { ...rest, source };
}

/** The pseudonym of a person within an app: `hmac-sha256:` and 64 hexadecimal digits. */
export function pseudonymOf(appId: string, openId: string, key: Secret): string {
  return PSEUDONYM_PREFIX + createHmac('sha256', key.reveal()).update(`${appId}\n${openId}`).digest('hex');
}
