import { expect, test } from 'vitest';
import { componentEventOf, keepComponentEvent } from '../../../src/weixin/push/component-event.ts';
import { APP_ID } from '../../support/jobs.ts';
import { COMPONENT_ID, recordEvents } from '../../support/push.ts';

const NOW = 1_781_524_000_000;
const AT = 1_413_192_605;
const common = { AppId: COMPONENT_ID, CreateTime: String(AT) };

test.each<[Readonly<Record<string, string>>, readonly unknown[]]>([
  [
    { ...common, InfoType: 'component_verify_ticket', ComponentVerifyTicket: 'ticket@@@x' },
    ['ticket', COMPONENT_ID, 'ticket@@@x', AT * 1000],
  ],
  [
    {
      ...common,
      InfoType: 'authorized',
      AuthorizerAppid: APP_ID,
      AuthorizationCode: 'code',
      AuthorizationCodeExpiredTime: '1',
    },
    ['authorized', COMPONENT_ID, APP_ID, 'code', AT * 1000],
  ],
  [
    { ...common, InfoType: 'updateauthorized', AuthorizerAppid: APP_ID, AuthorizationCode: 'code' },
    ['authorized', COMPONENT_ID, APP_ID, 'code', AT * 1000],
  ],
  [{ ...common, InfoType: 'unauthorized', AuthorizerAppid: APP_ID }, ['withdrawn', COMPONENT_ID, APP_ID, AT * 1000]],
  [
    { InfoType: 'component_verify_ticket', ComponentVerifyTicket: 'x', CreateTime: 'soon' },
    ['ticket', COMPONENT_ID, 'x', NOW],
  ],
])('%j is kept', async (fields, kept) => {
  const events = recordEvents();
  await keepComponentEvent(componentEventOf(fields, NOW), COMPONENT_ID, events);
  expect(events.kept).toEqual([kept]);
});

test.each<[Readonly<Record<string, string>>, object]>([
  [{ InfoType: 'notify_third_fasteregister' }, { type: 'other', infoType: 'notify_third_fasteregister' }],
  [{ InfoType: 'two words' }, { type: 'other', infoType: '(odd)' }],
  [{ InfoType: 'constructor' }, { type: 'other', infoType: 'constructor' }],
  [{ InfoType: 'component_verify_ticket', ComponentVerifyTicket: '' }, { type: 'incomplete' }],
  [{ InfoType: 'authorized', AuthorizerAppid: APP_ID }, { type: 'incomplete' }],
  [{ InfoType: 'authorized', AuthorizerAppid: 'gh_1', AuthorizationCode: 'code' }, { type: 'incomplete' }],
  [{ InfoType: 'unauthorized', AuthorizerAppid: '../x' }, { type: 'incomplete' }],
  [
    { MsgType: 'image', MediaId: 'A' },
    { type: 'incomplete', reason: expect.stringContaining('/$APPID$') },
  ],
  [{}, { type: 'incomplete', reason: 'an event without InfoType' }],
])('%j is nothing to keep', async (fields, expected) => {
  const event = componentEventOf(fields, NOW);
  expect(event).toMatchObject(expected);
  const events = recordEvents();
  await keepComponentEvent(event, COMPONENT_ID, events);
  expect(events.kept).toEqual([]);
});

test('an event that can not be kept is not taken for kept', async () => {
  const events = recordEvents(() => Promise.reject(new Error('Redis is away')));
  const event = componentEventOf({ InfoType: 'unauthorized', AuthorizerAppid: APP_ID }, NOW);
  await expect(keepComponentEvent(event, COMPONENT_ID, events)).rejects.toThrow('Redis is away');
});
