import type { LifecycleRule } from '@aws-sdk/client-s3';
import type { BucketRules } from './bucket-rules.ts';
import type { Finding } from './check-store.ts';

/** What we write, and whether a rule may remove what is current there without anybody missing it. */
const FOLDERS: Readonly<Record<string, { readonly mustStay: boolean }>> = {
  'media/': { mustStay: true },
  'annotations/': { mustStay: true },
  'catalog/': { mustStay: true },
  'manifests/': { mustStay: true },
  'erasures/': { mustStay: true },
  'derived/': { mustStay: false },
  'dead-letters/': { mustStay: false },
  'verifications/': { mustStay: false },
};

/** What nobody can read without asking for it first, and waiting for hours. */
const ASLEEP: ReadonlySet<string> = new Set(['GLACIER', 'DEEP_ARCHIVE']);

/** Says which rules a bucket has, and what is wrong with them. */
export function ruleFindings(rules: BucketRules): Finding[] {
  const { lifecycle } = rules;
  if (lifecycle === undefined) return [protectionFinding(rules), ...lockFindings(rules), unreadable()];
  const enabled = lifecycle.filter(({ Status }) => Status === 'Enabled');
  return [
    protectionFinding(rules),
    ...lockFindings(rules),
    abortFinding(enabled),
    ...enabled.map(ruleFinding),
    ...keptFindings(rules, enabled),
  ];
}

function protectionFinding({ versioning }: BucketRules): Finding {
  const details = {
    on: 'earlier versions of objects are kept',
    suspended: 'suspended: versions from before are kept, new ones are not',
    off: 'none are kept: what is overwritten or removed is gone',
    unknown: 'the store does not tell',
  };
  return { check: 'versions', result: 'ok', detail: details[versioning] };
}

function lockFindings({ lock }: BucketRules): Finding[] {
  if (lock === undefined) return [];
  const { mode, days } = lock;
  const detail =
    mode === undefined
      ? 'on, without a retention that every object gets'
      : `${mode.toLowerCase()} mode${days === undefined ? '' : `, ${days} days`}`;
  if (mode === undefined) return [{ check: 'object lock', result: 'ok', detail }];
  const hint =
    mode === 'COMPLIANCE'
      ? 'Nobody can erase a person before the retention of their objects ends. See docs/privacy.md.'
      : 'Only who may bypass governance can erase a person before the retention ends. See docs/privacy.md.';
  return [{ check: 'object lock', result: 'warn', detail, hint }];
}

function unreadable(): Finding {
  const hint = 'Add a lifecycle rule AbortIncompleteMultipartUpload of 7 days.';
  return { check: 'lifecycle', result: 'warn', detail: 'no lifecycle rules can be read', hint };
}

function abortFinding(rules: readonly LifecycleRule[]): Finding {
  const aborts = rules.some(
    (rule) => rule.AbortIncompleteMultipartUpload !== undefined && covers(rule, 'media/') && isForAll(rule),
  );
  if (aborts) return { check: 'lifecycle', result: 'ok', detail: 'old multipart uploads are aborted' };
  const hint = 'Add a lifecycle rule AbortIncompleteMultipartUpload of 7 days.';
  return { check: 'lifecycle', result: 'warn', detail: 'no rule aborts old multipart uploads', hint };
}

function ruleFinding(rule: LifecycleRule): Finding {
  const [check, detail] = [`lifecycle rule ${rule.ID ?? 'without a name'}`, ruleText(rule)];
  const { Days, Date: at } = rule.Expiration ?? {};
  if (Days !== undefined || at !== undefined) {
    const lost = Object.entries(FOLDERS).flatMap(([folder, { mustStay }]) =>
      mustStay && touches(rule, folder) ? folder : [],
    );
    if (lost.length > 0) {
      const hint = `It deletes from ${lost.join(', ')} and nobody is told: keep it only where that is your retention. See docs/privacy.md.`;
      return { check, result: 'warn', detail, hint };
    }
  }
  const isAsleep = (rule.Transitions ?? []).some(({ StorageClass = '' }) => ASLEEP.has(StorageClass));
  const needed = ['catalog/', 'manifests/'].filter((folder) => touches(rule, folder));
  if (isAsleep && needed.length > 0) {
    const hint = `The catalog process can't read ${needed.join(' and ')} there: give the rule a narrower prefix.`;
    return { check, result: 'warn', detail, hint };
  }
  return { check, result: 'ok', detail };
}

/** Versions that no rule ever removes. */
function keptFindings({ versioning }: BucketRules, rules: readonly LifecycleRule[]): Finding[] {
  if (versioning !== 'on' && versioning !== 'suspended') return [];
  const kept = Object.keys(FOLDERS).filter(
    (folder) =>
      !rules.some(
        (rule) =>
          rule.NoncurrentVersionExpiration?.NoncurrentDays !== undefined && covers(rule, folder) && isForAll(rule),
      ),
  );
  if (kept.length === 0) return [{ check: 'old versions', result: 'ok', detail: 'are removed in time' }];
  const detail = `are kept for ever below ${kept.join(', ')}`;
  const hint = 'Add a lifecycle rule NoncurrentVersionExpiration of 30 days: see docs/privacy.md.';
  return [{ check: 'old versions', result: 'warn', detail, hint }];
}

function prefixOf({ Filter, Prefix }: LifecycleRule): string {
  return Filter?.Prefix ?? Filter?.And?.Prefix ?? Prefix ?? '';
}

/** True for a rule that is not narrowed to objects with a tag, or of a size. */
function isForAll({ Filter }: LifecycleRule): boolean {
  return (
    Filter?.And === undefined &&
    Filter?.Tag === undefined &&
    Filter?.ObjectSizeGreaterThan === undefined &&
    Filter?.ObjectSizeLessThan === undefined
  );
}

function covers(rule: LifecycleRule, folder: string): boolean {
  return folder.startsWith(prefixOf(rule));
}

function touches(rule: LifecycleRule, folder: string): boolean {
  return covers(rule, folder) || prefixOf(rule).startsWith(folder);
}

function ruleText(rule: LifecycleRule): string {
  const { Expiration, Transitions = [], NoncurrentVersionExpiration, NoncurrentVersionTransitions = [] } = rule;
  const days = rule.AbortIncompleteMultipartUpload?.DaysAfterInitiation;
  const prefix = prefixOf(rule);
  const parts = [
    Expiration?.Days === undefined ? undefined : `deleted after ${Expiration.Days} days`,
    Expiration?.Date === undefined ? undefined : `deleted on ${Expiration.Date.toISOString().slice(0, 10)}`,
    Expiration?.ExpiredObjectDeleteMarker === true ? 'lone delete markers removed' : undefined,
    ...Transitions.map(({ Days = 0, StorageClass }) => `moved to ${StorageClass} after ${Days} days`),
    NoncurrentVersionExpiration?.NoncurrentDays === undefined
      ? undefined
      : `old versions removed after ${NoncurrentVersionExpiration.NoncurrentDays} days`,
    ...NoncurrentVersionTransitions.map(({ NoncurrentDays = 0, StorageClass }) => {
      return `old versions moved to ${StorageClass} after ${NoncurrentDays} days`;
    }),
    days === undefined ? undefined : `open uploads aborted after ${days} days`,
  ];
  const where = `${prefix === '' ? 'everything' : prefix}${isForAll(rule) ? '' : ' (some of it)'}`;
  return `${where}: ${parts.filter((part) => part !== undefined).join(', ')}`;
}
