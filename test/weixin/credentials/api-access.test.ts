import { expect, test } from 'vitest';
import { Secret } from '../../../src/secret.ts';
import type { Credential } from '../../../src/weixin/credentials/account.ts';
import { accessOf, addressOf } from '../../../src/weixin/credentials/api-access.ts';
import { APP_ID, testAccount } from '../../support/jobs.ts';

const SIDECAR = { type: 'cloud', mode: 'sidecar', namesApp: false, tokenFile: '' } as const;
const TOKEN_FILE = { ...SIDECAR, mode: 'token-file' } as const;
const OWN = testAccount().credential;
const EXTERNAL: Credential = { type: 'external', source: { redisKey: 'x' } };

const CASES: readonly (readonly [string, Credential, string, string, string])[] = [
  ['an own secret', OWN, 'https://api.weixin.qq.com', 'https://api.weixin.qq.com', '/p?access_token=T%2B&m=1'],
  [
    'a token service',
    EXTERNAL,
    'https://api2.weixin.qq.com:444',
    'https://api2.weixin.qq.com:444',
    '/p?access_token=T%2B&m=1',
  ],
  ['a path before that of the API', OWN, 'https://proxy/weixin/', 'https://proxy', '/weixin/p?access_token=T%2B&m=1'],
  [
    'a token file',
    TOKEN_FILE,
    'https://api.weixin.qq.com',
    'https://api.weixin.qq.com',
    '/p?cloudbase_access_token=T%2B&m=1',
  ],
  ['the sidecar', SIDECAR, 'https://api.weixin.qq.com', 'http://api.weixin.qq.com', '/p?m=1'],
  ['the sidecar, whose port is not that of https', SIDECAR, 'https://127.0.0.1:8443', 'http://127.0.0.1', '/p?m=1'],
  ['a sidecar at a port of its own', SIDECAR, 'http://127.0.0.1:8080', 'http://127.0.0.1:8080', '/p?m=1'],
  ['an app that is named', { ...SIDECAR, namesApp: true }, 'http://a', 'http://a', `/p?from_appid=${APP_ID}&m=1`],
];

test.each(CASES)(
  'a call by %s goes where it must, with what it must carry',
  (_what, credential, base, origin, path) => {
    const access = accessOf({ appId: APP_ID, credential }, new Secret('T+'));
    expect(addressOf(access, new URL(base), '/p', { m: '1' })).toEqual({ origin, path });
    expect(JSON.stringify(access)).not.toContain('T+');
  },
);
