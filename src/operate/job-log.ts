import { FAILURES } from '../failure.ts';
import type { Logger } from '../log.ts';
import { mediaJobId } from '../media/media-job.ts';
import type { JobEvent } from '../queue/job-events.ts';
import { iso } from '../time.ts';

/** Writes what happens to jobs to the log, each line with the job's fields. Never an openId. */
export function logJobEvent(log: Logger, event: JobEvent): void {
  switch (event.type) {
    case 'archived': {
      const { job, object, durationMs, attempt, marginMs } = event;
      const { key, sizeBytes, sha256, contentType, created } = object;
      log.info(
        {
          ...jobFields(job),
          outcome: 'archived',
          key,
          sizeBytes,
          sha256,
          contentType,
          created,
          durationMs,
          attempt,
          marginMs,
        },
        'archived',
      );
      return;
    }
    case 'retry':
      log.warn(
        { ...jobFields(event.job), outcome: 'retry', ...failureFields(event), nextTryAt: iso(event.at) },
        'failed, will be tried again',
      );
      return;
    case 'wait':
      log.warn({ ...jobFields(event.job), outcome: 'wait', ...failureFields(event) }, 'waits for the gate of its app');
      return;
    case 'dead': {
      const { appId, mediaId, reason, failure, durationMs, attempt } = event;
      log.error(
        { appId, mediaId, outcome: 'dead', reason, failure, durationMs, attempt, hint: FAILURES[reason].hint },
        'given up',
      );
      return;
    }
    case 'duplicate':
      log.debug({ jobId: event.jobId }, 'was archived already');
      return;
    case 'erased':
      log.info({ jobId: event.jobId }, 'was erased meanwhile: nothing of it is kept');
      return;
    case 'postponed':
      log.warn(
        { jobId: event.jobId, failure: event.failure, hint: FAILURES[event.failure.code].hint },
        'could not be settled yet',
      );
      return;
    case 'released':
      log.info(
        { jobId: event.jobId, cause: event.cause },
        event.cause === 'shutdown' ? 'put back' : 'left to another worker',
      );
      return;
    case 'gate-closed': {
      const { appId, reason, probeAt, ...facts } = event.gate;
      log.error(
        { appId, reason, ...facts, probeAt: iso(probeAt), hint: FAILURES[reason].hint },
        'gate closed: this app waits',
      );
      return;
    }
    case 'gate-opened':
      log.info({ appId: event.appId }, 'gate opened');
      return;
    case 'rescued':
      log.warn({ lane: event.lane, jobIds: event.jobIds }, 'took over jobs of a worker that died');
      return;
    case 'fault':
      log.error({ where: event.where, err: event.error }, 'unexpected fault');
      return;
    default:
      event satisfies never;
  }
}

function jobFields(job: Extract<JobEvent, { type: 'archived' }>['job']): object {
  const { appId, mediaId, kind, receivedAt } = job;
  return { jobId: mediaJobId(job), appId, mediaId, kind, receivedAt, messageId: job.source?.messageId };
}

function failureFields({ failure, durationMs, attempt }: Extract<JobEvent, { type: 'retry' | 'wait' }>): object {
  return { failure, durationMs, attempt, hint: FAILURES[failure.code].hint };
}
