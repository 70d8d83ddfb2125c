import { expect, test } from 'vitest';
import { mediaJobId } from '../../src/media/media-job.ts';
import { mediaNames, variantOf } from '../../src/operate/media-name.ts';
import { APP_ID } from '../support/jobs.ts';

test.each([
  ['abc', ['abc', 'abc.hd-voice']],
  ['-a_9', ['-a_9', '-a_9.hd-voice']],
  ['abc.hd-voice', ['abc.hd-voice']],
  ['abc.hd-video', []],
  ['a b', []],
  ['.hd-voice', []],
  ['', []],
  ['x'.repeat(257), []],
])('%j names %j', (text, expected) => {
  const names = mediaNames(APP_ID, text);
  expect(names.map(mediaJobId)).toEqual(expected.map((name) => `${APP_ID}-${name}`));
  for (const name of names) expect(variantOf(mediaJobId(name), name)).toBe(name.variant);
});
