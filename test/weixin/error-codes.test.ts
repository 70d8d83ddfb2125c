import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FAILURES } from '../../src/failure.ts';
import { createApiHosts } from '../../src/weixin/api-hosts.ts';
import { requestToken } from '../../src/weixin/credentials/token-endpoint.ts';
import { failureOfErrcode, MEDIA_ERROR_CODES, TOKEN_ERROR_CODES } from '../../src/weixin/error-codes.ts';
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
        token: await bench.token(),
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
  for (const [errcode, { failure }] of Object.entries({ ...MEDIA_ERROR_CODES, ...TOKEN_ERROR_CODES })) {
    test(`${errcode} is ${failure}`, async () => {
      bench.simulator.arm({ endpoint: 'token', action: { type: 'errcode', errcode: Number(errcode) } });
      const endpoint = { hosts: createApiHosts([new URL(bench.simulator.url)], Date.now), http: bench.http };
      expect(await requestToken(testAccount(), false, endpoint, never)).toMatchObject({
        ok: false,
        failure: { code: failure },
      });
    });
  }
});

test('a code that no table knows is unclassified', () => {
  expect(failureOfErrcode(12_345, 'media')).toBe('unclassified');
  expect(failureOfErrcode(12_345, 'token')).toBe('unclassified');
});
