import { appIdSchema } from '../../media/media-job.ts';
import { SECOND } from '../../time.ts';
import type { ComponentEvents } from '../credentials/component-events.ts';
import { type PushFields, textIn } from './push-fields.ts';

/**
 * What a push to the authorisation event URL of a platform says. `other` is nothing to us; `incomplete` lacks what an
 * event of its kind has, or is none: `reason` is for the log.
 *
 * @see https://developers.weixin.qq.com/doc/oplatform/Third-party_Platforms/2.0/api/Before_Develop/component_verify_ticket.html
 */
export type ComponentEvent =
  | { readonly type: 'ticket'; readonly ticket: string; readonly createdAt: number }
  | { readonly type: 'authorized'; readonly appId: string; readonly code: string; readonly createdAt: number }
  | { readonly type: 'withdrawn'; readonly appId: string; readonly createdAt: number }
  | { readonly type: 'other'; readonly infoType: string }
  | { readonly type: 'incomplete'; readonly reason: string };

/** @param now counts for an event that does not say when it was. */
export function componentEventOf(fields: PushFields, now: number): ComponentEvent {
  const infoType = textIn(fields, 'InfoType');
  const createTime = textIn(fields, 'CreateTime') ?? '';
  const createdAt = /^[1-9]\d{9}$/.test(createTime) ? Number(createTime) * SECOND : now;
  const appId = appIdSchema.safeParse(fields['AuthorizerAppid']).data;
  switch (infoType) {
    case 'component_verify_ticket': {
      const ticket = textIn(fields, 'ComponentVerifyTicket');
      return ticket === undefined
        ? incomplete('a ticket event without a ticket')
        : { type: 'ticket', ticket, createdAt };
    }
    case 'authorized':
    case 'updateauthorized': {
      const code = textIn(fields, 'AuthorizationCode');
      return appId === undefined || code === undefined
        ? incomplete('an authorisation without an app or a code')
        : { type: 'authorized', appId, code, createdAt };
    }
    case 'unauthorized':
      return appId === undefined ? incomplete('a withdrawal without an app') : { type: 'withdrawn', appId, createdAt };
    case undefined:
      return incomplete(
        'MsgType' in fields
          ? 'a message, and no event: the message URL of the platform must end in /$APPID$'
          : 'an event without InfoType',
      );
    default:
      return { type: 'other', infoType: /^\w{1,64}$/.test(infoType) ? infoType : '(odd)' };
  }
}

/** Hands an event on. Resolves once it is kept, and rejects when it can't be. */
export async function keepComponentEvent(
  event: ComponentEvent,
  componentAppId: string,
  events: ComponentEvents,
): Promise<void> {
  switch (event.type) {
    case 'ticket':
      return events.ticket(componentAppId, event.ticket, event.createdAt);
    case 'authorized':
      return events.authorized(componentAppId, event.appId, event.code, event.createdAt);
    case 'withdrawn':
      return events.withdrawn(componentAppId, event.appId, event.createdAt);
    case 'other':
    case 'incomplete':
      return;
    default:
      event satisfies never;
  }
}

function incomplete(reason: string): ComponentEvent {
  return { type: 'incomplete', reason };
}
