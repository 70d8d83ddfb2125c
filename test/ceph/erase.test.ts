import { readFile } from 'node:fs/promises';
import {
  CreateBucketCommand,
  DeleteObjectCommand,
  PutBucketLifecycleConfigurationCommand,
  type PutBucketLifecycleConfigurationCommandInput,
  PutBucketVersioningCommand,
  PutObjectLockConfigurationCommand,
} from '@aws-sdk/client-s3';
import { expect, inject, test, vi } from 'vitest';
import { PARQUET_TYPE } from '../../src/catalog/flush.ts';
import { filesOf } from '../support/catalog.ts';
import { APP_ID } from '../support/jobs.ts';
import { jobsOf, leaveTraces, needlesOf, OPERATOR_KEY } from '../support/person.ts';
import { keysBelow, openStack, openUploads, untilIdle } from '../support/stack.ts';
import { traces } from '../support/traces.ts';

vi.setConfig({ testTimeout: 240_000 });

const never = new AbortController().signal;
const REDIS = { ownRedis: true, redisArguments: ['--rdbcompression', 'no'] };
const HMAC = { ARCHIVE_OPEN_ID: 'hmac', ARCHIVE_OPEN_ID_KEY: OPERATOR_KEY };

test('of an erased person a bucket with versions holds no version', async () => {
  await using stack = await openStack({ ...REDIS, gateway: inject('ceph'), env: HMAC });
  const place = { Bucket: stack.s3.bucket };
  await stack.s3Client.send(
    new PutBucketVersioningCommand({ ...place, VersioningConfiguration: { Status: 'Enabled' } }),
  );
  const { victim, other } = await leaveTraces(stack);
  // Written anew since: the old files lie below delete markers. And an object that somebody has removed by hand.
  const files = filesOf(stack);
  const copy = `${stack.folder}/copy.parquet`;
  for (const key of await keysBelow(stack, 'catalog/media/')) {
    expect(await files.getFile(key, copy, never)).toMatchObject({ ok: true, value: true });
    expect(await files.remove(key, never)).toMatchObject({ ok: true });
    expect(await files.putFile(key, copy, PARQUET_TYPE, never)).toMatchObject({ ok: true });
  }
  const [first] = (await keysBelow(stack, 'media/')).filter((key) => key.includes(victim.media[1]?.mediaId ?? '?'));
  await stack.s3Client.send(new DeleteObjectCommand({ ...place, Key: first ?? '' }));
  const before = await traces(stack, needlesOf(victim));
  for (const where of ['catalog/media/', `${first}?versionId`, 'the upload of'])
    expect(before.join('\n')).toContain(where);
  expect(await openUploads(stack)).toHaveLength(2);

  const done = await stack.command(['erase', '--app', APP_ID, '--open-id', '-', '--json'], { input: victim.openId });
  expect(done.stderr).not.toContain('not everything');
  expect(done.rows().at(-1)).toMatchObject({ status: 'complete', left: {}, removed: { uploads: 1 } });
  expect(await traces(stack, needlesOf(victim))).toEqual([]);
  expect((await keysBelow(stack, 'media/')).length).toBe(12);
  expect((await openUploads(stack)).join()).toContain(other.media[0]?.mediaId);
});

test('the lifecycle that the docs recommend is taken, and doctor finds nothing to say about it', async () => {
  await using stack = await openStack({ gateway: inject('ceph') });
  const place = { Bucket: stack.s3.bucket };
  await stack.s3Client.send(
    new PutBucketVersioningCommand({ ...place, VersioningConfiguration: { Status: 'Enabled' } }),
  );
  const ofRules = async (): Promise<Record<string, unknown>[]> => {
    const { stdout } = await stack.command(['doctor', '--json']);
    const rows = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    return rows.filter(({ check }) => /^(versions|old versions|lifecycle|object lock)/.test(String(check)));
  };
  expect(await ofRules()).toMatchObject([
    { check: 'versions', result: 'ok' },
    { check: 'lifecycle', result: 'warn' },
    { check: 'old versions', result: 'warn', detail: expect.stringContaining('kept for ever below media/') },
  ]);

  const docs = await readFile(new URL('../../docs/privacy.md', import.meta.url), 'utf8');
  const [, json = ''] = /```json\n([^`]*)```/.exec(docs) ?? [];
  const recommended = JSON.parse(json) as PutBucketLifecycleConfigurationCommandInput['LifecycleConfiguration'];
  const put = (rules: typeof recommended): Promise<unknown> =>
    stack.s3Client.send(new PutBucketLifecycleConfigurationCommand({ ...place, LifecycleConfiguration: rules }));
  await put(recommended);
  const found = await ofRules();
  expect(found.filter(({ result }) => result !== 'ok')).toEqual([]);
  expect(found.map(({ detail }) => detail)).toEqual(
    expect.arrayContaining([
      'everything: old versions removed after 30 days, open uploads aborted after 7 days',
      'derived/: deleted after 365 days',
    ]),
  );

  await put({ Rules: [{ ID: 'clean', Status: 'Enabled', Filter: { Prefix: '' }, Expiration: { Days: 90 } }] });
  const warned = (await ofRules()).find(({ check }) => check === 'lifecycle rule clean');
  expect(warned).toMatchObject({ result: 'warn', hint: expect.stringContaining('deletes from media/') });
});

test('what is locked can not be erased, and that is said', async () => {
  await using stack = await openStack({ ...REDIS, gateway: inject('ceph'), env: HMAC });
  const bucket = `locked-${crypto.randomUUID()}`;
  const locked = { ARCHIVE_BUCKET: bucket };
  await stack.s3Client.send(new CreateBucketCommand({ Bucket: bucket, ObjectLockEnabledForBucket: true }));
  const rule = { DefaultRetention: { Mode: 'COMPLIANCE', Days: 1 } } as const;
  await stack.s3Client.send(
    new PutObjectLockConfigurationCommand({
      Bucket: bucket,
      ObjectLockConfiguration: { ObjectLockEnabled: 'Enabled', Rule: rule },
    }),
  );
  const victim = { openId: 'oVictimVictimVictimVictim_-01', media: stack.addMedia(2) };
  const worker = stack.worker(locked);
  await stack.queue.door.admit(jobsOf(victim));
  await untilIdle(stack);
  await worker.stop();
  const who = ['erase', '--app', APP_ID, '--open-id', '-', '--json'];
  const done = await stack.command(who, { input: victim.openId, env: locked });
  expect(done.code).toBe(1);
  expect(done.stderr).toContain('Object Lock is in compliance mode');
  expect(done.rows().at(-1)).toMatchObject({ status: 'incomplete', left: { keysNotRemoved: 3 } });
  const doctor = await stack.command(['doctor'], { env: locked });
  expect(doctor.stdout).toContain('object lock: compliance mode, 1 days');
});
