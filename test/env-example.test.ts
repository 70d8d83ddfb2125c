import { readFileSync } from 'node:fs';
import { parseEnv } from 'node:util';
import { expect, test } from 'vitest';
import { loadConfig } from '../src/config.ts';
import { VARIABLES } from '../src/config-variables.ts';
import { APP_ID, APP_SECRET } from './support/jobs.ts';

const text = readFileSync(new URL('../.env.example', import.meta.url), 'utf8');

/** Every `NAME=value`, commented out or not. */
const settings = text.split('\n').flatMap((line) => {
  const [, hash, name, value] = /^(#?)([A-Z][A-Z0-9_]*)=(.*)$/.exec(line) ?? [];
  return name === undefined || value === undefined ? [] : [{ name, value, active: hash === '' }];
});
const ours = settings.filter(({ name }) => !name.startsWith('AWS_'));
const variables = Object.entries(VARIABLES).map(
  ([name, { default: value, secret }]: [string, { default?: string; secret?: true }]) => ({
    name,
    value,
    secret,
  }),
);

test('lists every variable that the program reads, once, and none beyond', () => {
  expect(ours.map(({ name }) => name).toSorted()).toEqual(Object.keys(VARIABLES).toSorted());
});

test.each(variables)('$name stands there with its default', ({ name, value = '' }) => {
  expect(ours.find((setting) => setting.name === name)?.value).toBe(value);
});

test('names what the AWS SDK reads, without values', () => {
  const aws = settings.filter(({ name }) => name.startsWith('AWS_'));
  expect(aws.map(({ name }) => name)).toEqual([
    'AWS_REGION',
    'AWS_ENDPOINT_URL_S3',
    'AWS_ACCESS_KEY_ID',
    'AWS_SECRET_ACCESS_KEY',
  ]);
  expect(aws.every(({ value, active }) => value === '' && !active)).toBe(true);
});

test('only what must be filled in is not commented out, and it is empty', () => {
  expect(settings.filter(({ active }) => active).map(({ name, value }) => `${name}=${value}`)).toEqual([
    'ARCHIVE_BUCKET=',
    'WEIXIN_APP_ID=',
    'WEIXIN_APP_SECRET=',
  ]);
});

test('a copy that is not filled in says what a worker misses', () => {
  expect(() => loadConfig(parseEnv(text), ['store', 'accounts'])).toThrow(
    expect.objectContaining({
      mistakes: [
        expect.objectContaining({ variable: 'WEIXIN_APP_ID', received: 'nothing' }),
        expect.objectContaining({ variable: 'ARCHIVE_BUCKET', received: 'nothing' }),
      ],
    }),
  );
});

test('a copy in which every line is uncommented gives the same configuration as the defaults', () => {
  const filledIn = { ARCHIVE_BUCKET: 'media', WEIXIN_APP_ID: APP_ID, WEIXIN_APP_SECRET: APP_SECRET };
  const uncommented = parseEnv(settings.map(({ name, value }) => `${name}=${value}`).join('\n'));
  expect(loadConfig({ ...uncommented, ...filledIn })).toEqual(loadConfig(filledIn));
});

test('no line is a setting that the parser of .env files does not see', () => {
  const stray = text.split('\n').filter((line) => line !== '' && !/^# |^#?[A-Z][A-Z0-9_]*=/.test(line));
  expect(stray).toEqual([]);
});
