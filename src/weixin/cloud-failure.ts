import { type Failure, failure } from '../failure.ts';
import type { ApiAccess } from './credentials/api-access.ts';

/** Marks what the sidecar has passed on to WeChat. */
const PASSED_ON = 'x-openapi-seqid';

/**
 * Says of a failure what only calls in WeChat Cloud Run can mean by it; any other is returned as it is.
 *
 * @see https://developers.weixin.qq.com/minigame/dev/wxcloudrun/src/guide/weixin/faq.html
 */
export function ofCloudCall(
  cause: Failure,
  { source, plainHttp, fromAppId }: ApiAccess,
  headers: Readonly<Record<string, string | string[] | undefined>>,
): Failure {
  if (source !== 'cloud') return cause;
  const { code, httpStatus, detail } = cause;
  // The sidecar itself answers so for a path that is not on its allow-list.
  if (plainHttp && code === 'weixin-bad-gateway' && httpStatus === 502 && headers[PASSED_ON] === undefined)
    return failure('cloud-call-misconfigured', { httpStatus, detail });
  if (code === 'api-unauthorized') {
    const advice =
      fromAppId === undefined
        ? 'set fromAppId if the environment is shared by several apps'
        : `the environment is not shared with ${fromAppId}`;
    return { ...cause, detail: advice };
  }
  return cause;
}

/** True of what the sidecar itself refused. A sidecar that is about to start or to stop may do so for a moment. */
export function isUnlistedPath({ code, httpStatus }: Failure): boolean {
  return code === 'cloud-call-misconfigured' && httpStatus === 502;
}
