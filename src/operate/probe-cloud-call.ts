import type { Failure } from '../failure.ts';
import { Secret } from '../secret.ts';
import type { ApiHosts } from '../weixin/api-hosts.ts';
import type { Account } from '../weixin/credentials/account.ts';
import { accessOf } from '../weixin/credentials/api-access.ts';
import { getMedia } from '../weixin/get-media.ts';
import type { HttpPool, WeixinTimeouts } from '../weixin/http.ts';

/** No media has it: real ones have 43 characters or more. */
const NO_MEDIA = 'doctor';

/** More is never read. */
const MAX_BYTES = 1;

/**
 * Looks whether the sidecar of WeChat Cloud Run lets an app call media/get: it does when WeChat itself says that there
 * is no such media. Returns what else it says.
 *
 * @throws the signal's reason when it aborts.
 */
export async function probeCloudCall(
  account: Account,
  { hosts, http }: { readonly hosts: ApiHosts; readonly http: HttpPool },
  timeouts: WeixinTimeouts,
  signal: AbortSignal,
): Promise<Failure | undefined> {
  const access = accessOf(account, new Secret(''));
  const job = { mediaId: NO_MEDIA };
  const request = { baseUrl: hosts.preferred, access, job, dispatcher: http.fresh, timeouts, maxBytes: MAX_BYTES };
  const got = await getMedia(request, signal);
  if (!got.ok) return got.failure.code === 'invalid-media-id' ? undefined : got.failure;
  if (got.value.type === 'media') got.value.body.discard();
  return { code: 'weixin-unexpected-reply', detail: 'media although none was asked for' };
}
