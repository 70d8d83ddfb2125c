import { orAbort, timeLimit } from '../abort.ts';
import type { Logger } from '../log.ts';
import { appIdSchema, type MediaJob } from '../media/media-job.ts';
import { mediaJobsFromMessage } from '../media/message-media.ts';
import type { JobAdmission } from '../queue/door.ts';
import { redisTrouble } from '../redis/redis-trouble.ts';
import { type Clock, iso, MINUTE, SECOND } from '../time.ts';
import type { Account, Component } from '../weixin/credentials/account.ts';
import type { ComponentEvents } from '../weixin/credentials/component-events.ts';
import { componentEventOf, keepComponentEvent } from '../weixin/push/component-event.ts';
import type { PushFields } from '../weixin/push/push-fields.ts';
import {
  judgePush,
  type PushExpectation,
  type PushRequest,
  type PushVerdict,
  refusalOfHead,
} from '../weixin/push/push-request.ts';
import type { Forward } from './forward.ts';
import type { Patiently } from './patience.ts';
import { BAD_REQUEST, FAILED, FORBIDDEN, NOT_FOUND, type PushAnswer, SUCCESS, UNAVAILABLE } from './push-answer.ts';
import { createRecently } from './recently.ts';
import { createTellSeen } from './tell-seen.ts';

/** Until Redis has taken it, from the head of a push on, of the 5 s that WeChat waits: what is later comes again. */
const ADMIT_TOTAL_MS = 4 * SECOND;
/** One line for each app and reason: anybody can send what is refused, and an outage makes all pushes alike. */
const LOG_EVERY_MS = MINUTE;
const MAX_LOG_KEYS = 1_000;

/** What a push came to. `unavailable` and `rejected` are pushed again. */
export type PushResult =
  | 'verified'
  | 'checked'
  | 'queued'
  | 'no-media'
  | 'event'
  | 'refused'
  | 'unreadable'
  | 'unknown-app'
  | 'unavailable'
  | 'rejected';

/** For metrics. `appId` is one that is configured or has come by a platform; `media` counts those queued or known. */
export interface PushEvent {
  readonly result: PushResult;
  readonly status: number;
  readonly media: number;
  readonly appId?: string;
}

export interface PushParts {
  readonly accounts: { find(appId: string): Account | undefined };
  readonly components: readonly Component[];
  /** Queues jobs, durably, and tells of each what became of it. Rejects when Redis does not take them. */
  readonly admit: (jobs: readonly MediaJob[]) => Promise<readonly JobAdmission[]>;
  readonly componentEvents: ComponentEvents;
  readonly forward?: Pick<Forward, 'send'>;
  /** Of the fleet. */
  readonly now: Clock;
  readonly log: Pick<Logger, 'info' | 'warn' | 'error'>;
  readonly observe?: (event: PushEvent) => void;
  /** Waits for a Redis that is away. Default: nobody does. */
  readonly patiently?: Patiently;
  /** From the head of a push until Redis has taken it. Default 4 s. */
  readonly admitTotalMs?: number;
}

/** A request to one of the addresses of pushes. */
export interface ReceivedPush extends PushRequest {
  /** As they stand in the address, whatever that is. */
  readonly appId?: string;
  readonly componentAppId?: string;
  /** As it came, without the question mark. */
  readonly rawQuery: string;
  /** Of `headers`, what goes on to the operator's own handler. */
  readonly forwardedHeaders: Readonly<Record<string, string>>;
  /** How long ago it began to come, in milliseconds. */
  readonly spentMs: () => number;
}

/** Whose pushes come to an address, and how they are known. */
type Target = { readonly expected: PushExpectation } & (
  | { readonly type: 'messages'; readonly appId: string; readonly component?: Component }
  | { readonly type: 'events'; readonly appId: string; readonly component: Component }
);

interface Handled {
  readonly result: PushResult;
  readonly answer: PushAnswer;
  readonly media?: number;
}

const never = new AbortController().signal;

export interface PushReceiver {
  /** Answers a push that is refused whatever its body is; `undefined` for one whose body is worth reading. */
  refuseHead(push: Omit<ReceivedPush, 'body'>): PushAnswer | undefined;
  receive(push: ReceivedPush): Promise<PushAnswer>;
}

/**
 * Makes what answers pushes: `success` once every media of a message is queued, and anything else where it is not, so
 * that WeChat pushes the message again. Pushed again it does no harm.
 */
export function createPushReceiver(parts: PushParts): PushReceiver {
  const { accounts, components, admit, componentEvents, forward, now, log } = parts;
  const { patiently = (work, signal) => orAbort(work(), signal), admitTotalMs = ADMIT_TOTAL_MS } = parts;
  const logged = createRecently(LOG_EVERY_MS, MAX_LOG_KEYS, now);
  const tellSeen = createTellSeen(componentEvents, now);

  function targetOf({ appId, componentAppId }: Pick<ReceivedPush, 'appId' | 'componentAppId'>): Target | undefined {
    const component = components.find((one) => one.appId === (componentAppId ?? appId));
    if (component !== undefined) {
      // Also for messages of the apps that have authorised it.
      const expected = { type: 'signed', settings: component.push, trailer: component.appId } as const;
      return componentAppId !== undefined && appId !== undefined
        ? { type: 'messages', appId, component, expected }
        : { type: 'events', appId: component.appId, component, expected };
    }
    if (componentAppId !== undefined || appId === undefined) return undefined;
    const push = accounts.find(appId)?.push;
    if (push === undefined) return undefined;
    return { type: 'messages', appId, expected: push.type === 'cloud' ? push : { ...push, trailer: appId } };
  }

  /** One line a minute for each app and reason; what counts in a reason is its words. */
  function logSometimes(level: 'info' | 'warn' | 'error', appId: string, message: string, reason = ''): void {
    if (isDue(`${appId} ${message} ${reason.replaceAll(/\d+/g, '')}`))
      log[level](reason === '' ? { appId } : { appId, reason }, message);
  }

  /** True once a minute. @param key nothing that a stranger can make up: else he fills the log, and what is remembered. */
  function isDue(key: string): boolean {
    if (logged.has(key)) return false;
    logged.note(key);
    return true;
  }

  function unknownApp(given: string | undefined): Handled {
    const appId = appIdSchema.safeParse(given).data ?? '(none)';
    if (isDue('unknown app')) log.info({ appId }, 'a push for an app without push settings, for example');
    return { result: 'unknown-app', answer: NOT_FOUND };
  }

  async function handle(push: ReceivedPush, target: Target): Promise<Handled> {
    const verdict = judgePush(push, target.expected, now);
    switch (verdict.type) {
      case 'verification':
        return { result: 'verified', answer: { status: 200, body: verdict.echostr } };
      case 'container-check':
        return { result: 'checked', answer: SUCCESS };
      case 'refused':
        return refused(target, verdict);
      case 'unreadable':
        logSometimes('error', target.appId, 'a push by WeChat can not be read', verdict.reason);
        return { result: 'unreadable', answer: await passOnly(push, target.appId, BAD_REQUEST) };
      case 'message':
        return target.type === 'events'
          ? handleEvent(push, target.appId, verdict.fields)
          : handleMessage(push, target, verdict.fields);
      default:
        return verdict satisfies never;
    }
  }

  async function handleMessage(
    push: ReceivedPush,
    { appId, component }: Extract<Target, { readonly type: 'messages' }>,
    fields: PushFields,
  ): Promise<Handled> {
    // Of an address of a platform, whose console takes any.
    if (!appIdSchema.safeParse(appId).success) return unknownApp(appId);
    // And takes this address for its events, too.
    if (component !== undefined && 'InfoType' in fields && !('MsgType' in fields))
      return handleEvent(push, component.appId, fields);
    const jobs = mediaJobsFromMessage(fields, { appId, now: now() }).map(notInTheFuture);
    // What has no media needs no Redis.
    if (jobs.length === 0) return { result: 'no-media', answer: await passOn(push, appId) };
    let admitted: readonly JobAdmission[];
    try {
      admitted = await inTime(push, async (signal) => {
        if (component !== undefined) await tellSeen(component.appId, appId, signal);
        return admit(jobs);
      });
    } catch (error) {
      logSometimes('warn', appId, 'the media of messages can not be queued: WeChat pushes them again', reasonOf(error));
      return { result: 'unavailable', answer: UNAVAILABLE };
    }
    const mistakes = admitted.flatMap((one) => (typeof one === 'string' ? [] : one.mistakes));
    if (mistakes.length > 0) {
      const [{ source = {} } = {}] = jobs;
      log.error({ appId, messageId: source.messageId, mistakes }, 'the media of a message are not taken');
      const media = admitted.filter((one) => typeof one === 'string').length;
      // Pushed again they would be no better, and the bot behind us wants the message.
      return { result: 'rejected', answer: await passOnly(push, appId, FAILED), media };
    }
    return { result: 'queued', answer: await passOn(push, appId), media: jobs.length };
  }

  async function handleEvent(push: ReceivedPush, appId: string, fields: PushFields): Promise<Handled> {
    const event = componentEventOf(fields, now());
    switch (event.type) {
      case 'incomplete':
        logSometimes('warn', appId, 'a push is refused', event.reason);
        return { result: 'refused', answer: BAD_REQUEST };
      case 'other':
        log.info({ appId, infoType: event.infoType }, 'an event of the platform that is nothing to us');
        break;
      default:
        try {
          await inTime(push, () => keepComponentEvent(event, appId, componentEvents));
        } catch (error) {
          logSometimes(
            'warn',
            appId,
            `events (${event.type}) can not be kept: WeChat pushes them again`,
            reasonOf(error),
          );
          return { result: 'unavailable', answer: UNAVAILABLE };
        }
    }
    return { result: 'event', answer: await passOn(push, appId) };
  }

  /** What Redis was given goes on when its time is up: it is repeated by the next push, and that is harmless. */
  async function inTime<T>({ spentMs }: ReceivedPush, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    using limit = timeLimit(never, Math.max(0, admitTotalMs - spentMs()));
    return await patiently(() => work(limit.signal), limit.signal);
  }

  /** A media is at most as old as its message is on its way: a clock that is behind must not keep it out. */
  function notInTheFuture(job: MediaJob): MediaJob {
    return Date.parse(job.receivedAt) > now() ? { ...job, receivedAt: iso(now()) } : job;
  }

  /** For what is nothing to us: the handler's answer, or `otherwise` where there is none. */
  async function passOnly(push: ReceivedPush, appId: string, otherwise: PushAnswer): Promise<PushAnswer> {
    return forward === undefined ? otherwise : passOn(push, appId);
  }

  async function passOn(
    { rawQuery, forwardedHeaders, body, spentMs }: ReceivedPush,
    appId: string,
  ): Promise<PushAnswer> {
    if (forward === undefined) return SUCCESS;
    return forward.send({ appId, query: rawQuery, headers: forwardedHeaders, body }, spentMs());
  }

  /** For whoever observes; the answer of what was handled. */
  function told(target: Target | undefined, { result, answer, media = 0 }: Handled): PushAnswer {
    const appId = target === undefined ? undefined : appIdOf(target, result);
    parts.observe?.({ result, status: answer.status, media, ...(appId === undefined ? {} : { appId }) });
    return answer;
  }

  function refused(target: Target, verdict: Extract<PushVerdict, { readonly type: 'refused' }>): Handled {
    logSometimes('warn', signerOf(target), 'a push is refused', verdict.reason);
    return { result: 'refused', answer: verdict.status === 400 ? BAD_REQUEST : FORBIDDEN };
  }

  return {
    refuseHead: (push) => {
      const target = targetOf(push);
      if (target === undefined) return told(target, unknownApp(push.appId ?? push.componentAppId));
      const verdict = refusalOfHead(push, target.expected, now);
      return verdict?.type === 'refused' ? told(target, refused(target, verdict)) : undefined;
    },
    receive: async (push) => {
      const target = targetOf(push);
      return told(
        target,
        target === undefined ? unknownApp(push.appId ?? push.componentAppId) : await handle(push, target),
      );
    },
  };
}

/** In a word: an outage is no defect, and its stack helps nobody. */
function reasonOf(error: unknown): string {
  // Other words may quote what was sent.
  return redisTrouble(error) ?? (error instanceof Error ? error.name : typeof error);
}

/** Whose signature counts: what else stands in an address is anybody's until a push to it is signed. */
function signerOf(target: Target): string {
  return target.component?.appId ?? target.appId;
}

function appIdOf(target: Target, result: PushResult): string | undefined {
  if (result === 'unknown-app') return undefined;
  return result === 'refused' || result === 'verified' ? signerOf(target) : target.appId;
}
