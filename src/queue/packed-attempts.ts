import { z } from 'zod';
import { type AttemptRecord, attemptRecordSchema } from '../archive/attempt-record.ts';
import { iso } from '../time.ts';

/**
 * A history of attempts as it lies in Redis with its job.
 *
 * An outage of three days makes some 300 attempts, nearly all alike: what they have in common is written once, and of
 * each attempt only its time, its length and what is its own. Nothing is left out.
 */
export const packedAttemptsSchema = z.object({
  /** What attempts that failed alike share. In an `errmsg`, marks stand for what differs from answer to answer. */
  kinds: z.array(attemptRecordSchema.omit({ at: true, durationMs: true, rid: true })),
  /**
   * `[msSincePrevious, durationMs, kind, rid, hint]`; the first counts from 1970. `rid` and `hint` are left out where
   * there are none, and empty where only the other is there.
   */
  log: z.array(z.tuple([z.number(), z.number(), z.number()]).rest(z.string())),
});

export type PackedAttempts = z.output<typeof packedAttemptsSchema>;

type Kind = PackedAttempts['kinds'][number];

/** Stand in a shared `errmsg` for an attempt's own words. Private-use characters: no text of WeChat has them. */
const RID_MARK = '\uE000';
const HINT_MARK = '\uE001';

export function packAttempts(attempts: readonly AttemptRecord[]): PackedAttempts {
  const kinds = new Map<string, { readonly place: number; readonly kind: Kind }>();
  let previous = 0;
  const log = attempts.map(({ at, durationMs, rid, errmsg, ...facts }): PackedAttempts['log'][number] => {
    const [text, hint] = errmsg === undefined ? [undefined, ''] : withoutOwnWords(errmsg, rid);
    const kind: Kind = { ...facts, ...(text === undefined ? {} : { errmsg: text }) };
    const name = JSON.stringify(kind);
    const known = kinds.get(name) ?? { place: kinds.size, kind };
    kinds.set(name, known);
    const parsed = Date.parse(at);
    // A time that is none can only be somebody else's.
    const time = Number.isNaN(parsed) ? previous : parsed;
    const own = hint !== '' ? [rid ?? '', hint] : rid !== undefined ? [rid] : [];
    const row: PackedAttempts['log'][number] = [time - previous, durationMs, known.place, ...own];
    previous = time;
    return row;
  });
  return { kinds: [...kinds.values()].map(({ kind }) => kind), log };
}

/** @throws RangeError when the log speaks of a kind or a time that is not there: it is none of ours. */
export function unpackAttempts({ kinds, log }: PackedAttempts): AttemptRecord[] {
  let previous = 0;
  return log.map(([sincePrevious, durationMs, place, rid = '', hint = '']) => {
    const kind = kinds[place];
    if (kind === undefined) throw new RangeError(`there is no kind ${place}`);
    previous += sincePrevious;
    const { errmsg, ...facts } = kind;
    return {
      at: iso(previous),
      durationMs,
      ...facts,
      ...(errmsg === undefined ? {} : { errmsg: errmsg.replace(RID_MARK, () => rid).replace(HINT_MARK, () => hint) }),
      ...(rid === '' ? {} : { rid }),
    };
  });
}

/** @see https://developers.weixin.qq.com/doc/service/guide/dev/api/ which names `rid`; the hint is as it was seen. */
function withoutOwnWords(errmsg: string, rid: string | undefined): readonly [text: string, hint: string] {
  if (errmsg.includes(RID_MARK) || errmsg.includes(HINT_MARK)) return [errmsg, ''];
  const hint = /hint: \[([^\]]+)\]/.exec(errmsg)?.[1] ?? '';
  const text = hint === '' ? errmsg : errmsg.replace(hint, HINT_MARK);
  return [rid === undefined || rid === '' ? text : text.replace(rid, RID_MARK), hint];
}
