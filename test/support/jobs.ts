import { newMediaId } from '../../src/demo/weixin/weixin-simulator.ts';
import type { MediaJob } from '../../src/media/media-job.ts';
import { Secret } from '../../src/secret.ts';
import type { OwnAccount, OwnCredential } from '../../src/weixin/credentials/account.ts';

export const APP_ID = 'wx0123456789abcdef';
export const OTHER_APP_ID = 'wxfedcba9876543210';
export const APP_SECRET = 'a-secret-that-must-not-leak';

export function testAccount(appId = APP_ID, type: OwnCredential['type'] = 'stable_token'): OwnAccount {
  return { appId, credential: { type, secret: new Secret(APP_SECRET) } };
}

/** A valid job; whatever is given replaces its fields. */
export function testJob(fields: Partial<MediaJob> = {}): MediaJob {
  return { v: 1, appId: APP_ID, mediaId: newMediaId(), kind: 'image', receivedAt: '2026-06-15T11:00:00Z', ...fields };
}
