import type { ArchivedObject } from '../archive/archive-media.ts';
import type { Failure, FailureCode } from '../failure.ts';
import type { MediaJob } from '../media/media-job.ts';
import type { Gate } from './gates.ts';

/** What happened to a job, for logs, metrics and counters. */
export type JobEvent =
  | {
      readonly type: 'archived';
      readonly job: MediaJob;
      readonly object: ArchivedObject;
      readonly durationMs: number;
      readonly attempt: number;
      /** How long before its deadline, in milliseconds; negative when after. */
      readonly marginMs: number;
    }
  | {
      readonly type: 'retry';
      readonly job: MediaJob;
      readonly failure: Failure;
      readonly durationMs: number;
      readonly attempt: number;
      readonly at: number;
    }
  | {
      readonly type: 'wait';
      readonly job: MediaJob;
      readonly failure: Failure;
      readonly durationMs: number;
      readonly attempt: number;
    }
  | {
      readonly type: 'dead';
      readonly appId: string;
      readonly mediaId: string;
      readonly reason: FailureCode;
      /** What the last attempt failed of: for `deadline-exceeded` it is not the reason. */
      readonly failure: Failure;
      /** Of the last attempt; absent when there was none. */
      readonly durationMs?: number;
      readonly attempt: number;
    }
  /** Another job had archived the media by the time this one was taken. */
  | { readonly type: 'duplicate'; readonly jobId: string }
  /** The media was erased by an operator: nothing of it is kept. */
  | { readonly type: 'erased'; readonly jobId: string }
  /** A step of settling could not be done now; the job will be back. */
  | { readonly type: 'postponed'; readonly jobId: string; readonly failure: Failure }
  /** Given back without an attempt used: the worker stops, or lost its lock. */
  | { readonly type: 'released'; readonly jobId: string; readonly cause: 'shutdown' | 'lock-lost' }
  | { readonly type: 'gate-closed'; readonly gate: Gate }
  | { readonly type: 'gate-opened'; readonly appId: string }
  | { readonly type: 'rescued'; readonly lane: string; readonly jobIds: readonly string[] }
  /** Something that should not happen; `error` is for the log alone. */
  | { readonly type: 'fault'; readonly where: string; readonly error: unknown };

export type ObserveJob = (event: JobEvent) => void;
