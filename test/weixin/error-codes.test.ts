import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FAILURES } from '../../src/failure.ts';
import { createApiHosts } from '../../src/weixin/api-hosts.ts';
import { accessOf } from '../../src/weixin/credentials/api-access.ts';
import { requestToken } from '../../src/weixin/credentials/token-endpoint.ts';
import {
  CLOUD_ERROR_CODES,
  COMPONENT_ERROR_CODES,
  failureOfErrcode,
  MEDIA_ERROR_CODES,
  TOKEN_ERROR_CODES,
} from '../../src/weixin/error-codes.ts';
import { getMedia } from '../../src/weixin/get-media.ts';
import { APP_ID, testAccount } from '../support/jobs.ts';
import { openWeixinBench, TEST_TIMEOUTS, type WeixinBench } from '../support/weixin.ts';

let bench: WeixinBench;
beforeEach(async () => {
  bench = await openWeixinBench();
});
afterEach(() => bench[Symbol.asyncDispose]());

const never = new AbortController().signal;

describe('answered by media/get', () => {
  for (const [errcode, { failure }] of Object.entries(MEDIA_ERROR_CODES)) {
    test(`${errcode} is ${failure}, which is ${FAILURES[failure].action}`, async () => {
      const { mediaId } = bench.simulator.addMedia({ appId: APP_ID, format: 'jpeg' });
      bench.simulator.arm({ endpoint: 'media', mediaId, action: { type: 'errcode', errcode: Number(errcode) } });
      const baseUrl = new URL(bench.simulator.url);
      const request = {
        baseUrl,
        access: accessOf(testAccount(), await bench.token()),
        job: { mediaId },
        dispatcher: bench.http.pooled,
        timeouts: TEST_TIMEOUTS,
        maxBytes: 1e6,
      };
      const got = await getMedia(request, never);
      expect(got).toMatchObject({ ok: false, failure: { code: failure, errcode: Number(errcode) } });
    });
  }
});

describe('answered by a token endpoint', () => {
  const known = Object.keys({ ...MEDIA_ERROR_CODES, ...TOKEN_ERROR_CODES }).map(Number);

  for (const errcode of known) {
    const code = failureOfErrcode(errcode, 'token');
    test(`${errcode} is ${code}, in WeChat's words`, async () => {
      const action = { type: 'errcode', errcode, errmsg: 'the words' } as const;
      bench.simulator.arm({ endpoint: 'token', action });
      const endpoint = { hosts: createApiHosts([new URL(bench.simulator.url)], Date.now), http: bench.http };
      expect(await requestToken(testAccount(), false, endpoint, never)).toMatchObject({
        ok: false,
        failure: { code, errcode, errmsg: expect.stringContaining('the words') },
      });
    });

    test(`${errcode} gives no media up, and says nothing of a token or of the quota of media/get`, () => {
      expect(FAILURES[code].action).not.toBe('dead');
      expect(['token-rejected', 'quota-exhausted']).not.toContain(code);
    });
  }

  test.each([40004, 40005, 40007, 40014, 40118, 42001, 46001, 48006])('%i is no reply to what was asked', (errcode) => {
    expect(failureOfErrcode(errcode, 'token')).toBe('weixin-unexpected-reply');
  });

  test.each(Object.entries(TOKEN_ERROR_CODES))('%s is what its table says', (errcode, { failure }) => {
    expect(failureOfErrcode(Number(errcode), 'token')).toBe(failure);
  });

  test.each([
    [-1, 'weixin-busy'],
    [40001, 'app-secret-invalid'],
    [40125, 'app-secret-invalid'],
    [40164, 'ip-not-allowed'],
    [45009, 'token-quota-exhausted'],
    [45011, 'rate-limited'],
    [89503, 'ip-confirmation-pending'],
  ])('%i is %s', (errcode, code) => {
    expect(failureOfErrcode(errcode, 'token')).toBe(code);
  });
});

describe('answered to a third-party platform', () => {
  const known = Object.keys({ ...MEDIA_ERROR_CODES, ...COMPONENT_ERROR_CODES }).map(Number);

  test.each(known)('%i gives no media up, and says nothing of the quota of media/get', (errcode) => {
    for (const source of ['component', 'component-token'] as const) {
      const code = failureOfErrcode(errcode, source);
      expect(FAILURES[code].action).not.toBe('dead');
      expect(code).not.toBe('quota-exhausted');
      // No token was sent.
      if (source === 'component-token') expect(code).not.toBe('token-rejected');
    }
  });

  test.each([
    [40001, 'token-rejected', 'component-misconfigured'],
    [42001, 'token-rejected', 'component-misconfigured'],
    [40125, 'component-misconfigured', 'component-misconfigured'],
    [45009, 'token-quota-exhausted', 'token-quota-exhausted'],
    [61003, 'authorization-withdrawn', 'authorization-withdrawn'],
    [61004, 'ip-not-allowed', 'ip-not-allowed'],
    [61005, 'component-ticket-missing', 'component-ticket-missing'],
    [61006, 'component-ticket-missing', 'component-ticket-missing'],
    [61007, 'api-unauthorized', 'api-unauthorized'],
    [61011, 'component-misconfigured', 'component-misconfigured'],
    [61023, 'authorization-withdrawn', 'authorization-withdrawn'],
    [40007, 'weixin-unexpected-reply', 'weixin-unexpected-reply'],
  ])('%i is %s, and %s where the token of the platform is asked for', (errcode, code, ofToken) => {
    expect(failureOfErrcode(errcode, 'component')).toBe(code);
    expect(failureOfErrcode(errcode, 'component-token')).toBe(ofToken);
  });
});

describe('answered in WeChat Cloud Run', () => {
  test.each(Object.keys(MEDIA_ERROR_CODES).map(Number))(
    '%i is what its table says, or else what it always is',
    (errcode) => {
      const special: Readonly<Record<number, { failure: string } | undefined>> = CLOUD_ERROR_CODES;
      expect(failureOfErrcode(errcode, 'cloud')).toBe(special[errcode]?.failure ?? failureOfErrcode(errcode, 'media'));
    },
  );

  test('a missing token is one that nobody has added yet', () => {
    expect(failureOfErrcode(41001, 'cloud')).toBe('cloud-call-not-ready');
    expect(failureOfErrcode(41001, 'media')).toBe('token-rejected');
  });
});

test('a code that no table knows is unclassified', () => {
  expect(failureOfErrcode(12_345, 'media')).toBe('unclassified');
  expect(failureOfErrcode(12_345, 'token')).toBe('unclassified');
  expect(failureOfErrcode(12_345, 'cloud')).toBe('unclassified');
});
