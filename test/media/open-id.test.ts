import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type MediaJob, mediaJobSchema } from '../../src/media/media-job.ts';
import { applyOpenIdPolicy, type OpenIdPolicy, pseudonymOf } from '../../src/media/open-id.ts';
import { Secret } from '../../src/secret.ts';
import { APP_ID, OTHER_APP_ID, testJob } from '../support/jobs.ts';

const OPEN_ID = 'oFromUser-ABCDEFGHIJKLMNOPQR';
const key = new Secret('the key of the operator');
const NONE: OpenIdPolicy = { type: 'none' };
const HMAC: OpenIdPolicy = { type: 'hmac', key };
const PLAIN: OpenIdPolicy = { type: 'plain' };
const POLICIES = [NONE, HMAC, PLAIN];

const openIds = fc.string({ minLength: 1, maxLength: 128, unit: 'binary' });

describe('an openId', () => {
  test('is dropped by the policy none, and what is beside it stays', () => {
    const job = testJob({ source: { openId: OPEN_ID, messageId: '24536' }, labels: { shop: '7' } });
    expect(applyOpenIdPolicy(job, NONE)).toEqual({ ...job, source: { messageId: '24536' } });
  });

  test('that was all there was of a source takes the source with it', () => {
    const { source: _, ...rest } = testJob({ source: { openId: OPEN_ID } });
    expect(applyOpenIdPolicy({ ...rest, source: { openId: OPEN_ID } }, NONE)).toEqual(rest);
  });

  test('becomes a pseudonym that only the holder of the key can recompute', () => {
    const job = applyOpenIdPolicy(testJob({ source: { openId: OPEN_ID } }), HMAC);
    expect(job.source?.openId).toBe(pseudonymOf(APP_ID, OPEN_ID, key));
    expect(job.source?.openId).not.toBe(pseudonymOf(APP_ID, OPEN_ID, new Secret('another key')));
  });

  test('becomes another pseudonym in another app', () => {
    expect(pseudonymOf(APP_ID, OPEN_ID, key)).not.toBe(pseudonymOf(OTHER_APP_ID, OPEN_ID, key));
  });

  test('stays as it is by the policy plain', () => {
    const job = testJob({ source: { openId: OPEN_ID } });
    expect(applyOpenIdPolicy(job, PLAIN)).toEqual(job);
  });
});

test.each(POLICIES)('the policy $type, applied twice, changes nothing more, and leaves a MediaJob', (policy) => {
  fc.assert(
    fc.property(openIds, fc.option(fc.string({ minLength: 1 }), { nil: undefined }), (openId, messageId) => {
      const source = { openId, ...(messageId === undefined ? {} : { messageId }) };
      const once = applyOpenIdPolicy(testJob({ source }), policy);
      expect(applyOpenIdPolicy(once, policy)).toEqual(once);
      expect(mediaJobSchema.safeParse(once).success).toBe(true);
    }),
  );
});

test.each([NONE, HMAC])('no openId is left in a job by the policy $type', (policy) => {
  fc.assert(
    fc.property(
      fc.string({ minLength: 20, maxLength: 128, unit: fc.constantFrom(...'ghijklmnopqrstuvwxyzGHIJKLMN-_') }),
      (openId) => {
        const job = applyOpenIdPolicy(testJob({ source: { openId, messageId: '1' } }), policy);
        expect(JSON.stringify(job)).not.toContain(openId);
      },
    ),
  );
});

test.each(POLICIES)('a job without an openId passes the policy $type untouched', (policy) => {
  const jobs: MediaJob[] = [testJob(), testJob({ source: {} }), testJob({ source: { messageId: '1' } })];
  for (const job of jobs) expect(applyOpenIdPolicy(job, policy)).toBe(job);
});
