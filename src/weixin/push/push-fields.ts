/** A value of a push: text, whatever it was written as, so that no number loses a digit. */
export type PushValue = string | PushFields | readonly PushValue[];

/** A push as it was written, by the names of its fields. Has no prototype. */
export interface PushFields {
  readonly [name: string]: PushValue;
}

/** The fields, or why there are none, in words fit for a log. */
export type ParsedPush =
  | { readonly ok: true; readonly fields: PushFields }
  | { readonly ok: false; readonly reason: string };

/** Levels that a push may be deep: those of WeChat have four at most. */
export const MAX_PUSH_DEPTH = 8;

/** The text of a field, where it is one and not empty. */
export function textIn(fields: PushFields, name: string): string | undefined {
  const value = fields[name];
  return typeof value === 'string' && value !== '' ? value : undefined;
}
