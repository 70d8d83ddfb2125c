import type { PushFormat, PushMode, PushSender, simulatedPush } from '../../src/demo/weixin/message-push.ts';
import { Secret } from '../../src/secret.ts';
import type { Component, PushSettings } from '../../src/weixin/credentials/account.ts';
import type { ComponentEvents } from '../../src/weixin/credentials/component-events.ts';
import type { PushRequest } from '../../src/weixin/push/push-request.ts';
import { APP_ID } from './jobs.ts';

export const PUSH_TOKEN = 'a-push-token-that-must-not-leak';
export const AES_KEY = 'abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG';
export const COMPONENT_ID = 'wxc0c0c0c0c0c0c0c0';

export const MODES: readonly PushMode[] = ['plaintext', 'compatible', 'safe'];
export const FORMATS: readonly PushFormat[] = ['xml', 'json'];

/** Takes plaintext and encrypted pushes unless told otherwise. */
export function pushSettings(more: Partial<PushSettings> = {}): PushSettings {
  return {
    token: new Secret(PUSH_TOKEN),
    encodingAesKey: new Secret(AES_KEY),
    mustBeEncrypted: false,
    ...more,
  };
}

export function testComponent(appId = COMPONENT_ID): Component {
  return { appId, secret: new Secret('component-secret'), push: pushSettings({ mustBeEncrypted: true }) };
}

export function pushSender(more: Partial<PushSender> = {}): PushSender {
  return { token: PUSH_TOKEN, encodingAesKey: AES_KEY, appId: APP_ID, mode: 'safe', format: 'xml', ...more };
}

/** The request that a push of the simulator makes. */
export function requestOf({ query, headers, body }: ReturnType<typeof simulatedPush>): PushRequest {
  return { method: 'POST', query, headers, body: Buffer.from(body) };
}

/** Events of platforms, as they were kept. */
export interface RecordedEvents extends ComponentEvents {
  readonly kept: readonly (readonly unknown[])[];
}

/** @param keep what keeping does; it rejects where Redis is away. */
export function recordEvents(keep: () => Promise<void> = async () => undefined): RecordedEvents {
  const kept: unknown[][] = [];
  const record =
    (name: keyof ComponentEvents) =>
    async (...args: unknown[]): Promise<void> => {
      await keep();
      kept.push([name, ...args]);
    };
  return {
    kept,
    ticket: record('ticket'),
    authorized: record('authorized'),
    withdrawn: record('withdrawn'),
    seen: record('seen'),
  };
}
