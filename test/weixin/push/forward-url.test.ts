import { expect, test } from 'vitest';
import { forwardUrlOf } from '../../../src/weixin/push/forward-url.ts';
import { APP_ID } from '../../support/jobs.ts';

test.each([
  ['http://bot:3000', 'a=1&b=%20', 'http://bot:3000', '/?a=1&b=%20'],
  ['http://bot:3000/weixin', '', 'http://bot:3000', '/weixin'],
  ['https://bot/{appId}/x', 'a=1', 'https://bot', `/${APP_ID}/x?a=1`],
  ['https://bot/x?app={appId}&y', 'a=1&a=2', 'https://bot', `/x?app=${APP_ID}&y&a=1&a=2`],
  ['http://{appId}.bots/#x', 'a=+', `http://${APP_ID}.bots`, '/?a=+'],
])('%s with %j is %s%s', (template, query, origin, path) => {
  expect(forwardUrlOf(template, APP_ID, query)).toEqual({ origin, path });
});

test('an app can not leave its place', () => {
  expect(forwardUrlOf('http://bot/{appId}', '../a?b#c', '').path).toBe('/..%2Fa%3Fb%23c');
});
