import { MAX_PUSH_DEPTH, type ParsedPush, type PushFields, type PushValue } from './push-fields.ts';

/**
 * Reads a push in JSON. Numbers become the text they were written as: MsgId has 64 bits, and a number in JavaScript 53.
 */
export function parsePushJson(text: string): ParsedPush {
  // Before it is parsed: the reviver is called by recursion.
  if (depthOf(text) > MAX_PUSH_DEPTH) return { ok: false, reason: 'JSON that is too deep' };
  try {
    const fields: unknown = JSON.parse(text, textOfEach as (name: string, value: unknown) => unknown);
    return typeof fields === 'object' && fields !== null && !Array.isArray(fields)
      ? { ok: true, fields: fields as PushFields }
      : { ok: false, reason: 'JSON that is no object' };
  } catch {
    return { ok: false, reason: 'no JSON' };
  }
}

/** @see https://developer.mozilla.org/en-US/docs/Web/JavaScript/Reference/Global_Objects/JSON/parse#context */
function textOfEach(_name: string, value: unknown, context: { readonly source?: string }): PushValue {
  if (typeof value === 'number') return context.source ?? String(value);
  if (value === null) return '';
  if (typeof value === 'object') return Array.isArray(value) ? value : Object.setPrototypeOf(value, null);
  return String(value);
}

/**
 * Returns how many braces and brackets are open at once, at most, in what would be JSON. In one pass: a pattern that looks
 * for the end of each text would start anew at every quotation mark of one that has none.
 */
function depthOf(text: string): number {
  let deepest = 0;
  let depth = 0;
  let inText = false;
  for (let at = 0; at < text.length && deepest <= MAX_PUSH_DEPTH; at += 1) {
    const character = text[at];
    if (character === '"') inText = !inText;
    else if (inText) at += character === '\\' ? 1 : 0;
    else if (character === '{' || character === '[') depth += 1;
    else if (character === '}' || character === ']') depth -= 1;
    deepest = Math.max(deepest, depth);
  }
  return deepest;
}
