import type { FastifyInstance, FastifyReply } from 'fastify';
import { z } from 'zod';
import { orAbort } from '../abort.ts';
import { type DeadLetterSummary, deadLetterSchema, deadLetterSummarySchema } from '../dead-letter/dead-letter.ts';
import type { DeadLetterFilter } from '../dead-letter/dead-letter-index.ts';
import { FAILURES } from '../failure.ts';
import type { Logger } from '../log.ts';
import { MEDIA_VARIANTS } from '../media/media-job.ts';
import { matchesAll } from '../operate/chosen-letters.ts';
import { discardLetters } from '../operate/discard-letters.ts';
import { isLetterAppId, nameOf } from '../operate/media-name.ts';
import type { OpenStore } from '../operate/open-queue.ts';
import { readLetters } from '../operate/read-letters.ts';
import { replayLetters } from '../operate/replay-letters.ts';
import type { ReplayParts } from '../queue/replay.ts';
import { SECOND } from '../time.ts';
import {
  discardBodySchema,
  filterOf,
  listFilterOf,
  listQuerySchema,
  MAX_LETTERS,
  replayBodySchema,
} from './dead-letter-requests.ts';
import type { RequestHook } from './guard.ts';
import { cursorOf } from './list-cursor.ts';
import { type MassEach, type MassSums, massAnswerSchema, workThrough } from './mass-work.ts';
import { described } from './openapi.ts';
import { parsedBody, parsedQuery } from './parsed.ts';
import { type Problem, sendProblem } from './problem.ts';
import { unavailable } from './unexpected.ts';

export interface DeadLetterRoutesOptions {
  readonly replayParts: Omit<ReplayParts, 'deadLetters'>;
  readonly index: OpenStore['deadLetters']['index'];
  /** Absent where ARCHIVE_BUCKET is not set. */
  readonly bucket: Pick<OpenStore, 'store' | 'deadLetters'> | undefined;
  readonly canRead: RequestHook;
  readonly canOperate: RequestHook;
  readonly log: Logger;
  /** Aborts when the process stops. */
  readonly stop: AbortSignal;
}

const READ_TIMEOUT_MS = 5 * SECOND;

const NO_BUCKET: Problem = { status: 501, detail: 'dead letters lie in the bucket, and ARCHIVE_BUCKET is not set' };
const MUST_BE_MEANT: Problem = {
  status: 400,
  detail: 'this would concern every dead letter: give a filter, or "all": true if that is meant',
};

const variantFact = { variant: z.enum(MEDIA_VARIANTS).optional() };
const listSchema = z.object({
  items: z.array(deadLetterSummarySchema.extend(variantFact)),
  next: z.string().describe('the cursor of what follows; absent when nothing does').optional(),
});
const lettersSchema = z.object({ items: z.array(deadLetterSchema.extend({ key: z.string() })) });

/** `/v1/dead-letters`: what could not be saved. */
export function deadLetterRoutes(app: FastifyInstance, options: DeadLetterRoutesOptions): void {
  const { replayParts, index, bucket, canRead, canOperate, log, stop } = options;

  /** Collects the letters first, so that those that come meanwhile are not concerned; one more than wanted tells of more. */
  async function choose(filter: DeadLetterFilter, limit: number): Promise<DeadLetterSummary[]> {
    const signal = AbortSignal.timeout(READ_TIMEOUT_MS);
    return await orAbort(Array.fromAsync(index.list({ ...filter, limit: limit + 1 }, signal)), signal);
  }

  app.get(
    '/dead-letters',
    {
      onRequest: canRead,
      schema: described({
        summary: 'List the open dead letters.',
        description: 'In the order of death.',
        tag: 'dead letters',
        scope: 'read',
        query: listQuerySchema,
        answers: { 200: { says: 'A page of them.', schema: listSchema } },
        problems: { 400: 'a filter that there is not', 503: 'Redis does not answer' },
      }),
    },
    async (request, reply) => {
      const query = parsedQuery(listQuerySchema, request.query);
      if (!query.ok) return sendProblem(reply, query.problem);
      const { limit, ...filter } = listFilterOf(query.value);
      const found = await choose(filter, limit);
      const items = found.slice(0, limit);
      const last = items.at(-1);
      return {
        items: items.map((summary) => ({ ...summary, ...nameOf(summary) })),
        ...(found.length > limit && last !== undefined ? { next: cursorOf(last) } : {}),
      };
    },
  );

  app.get<{ Params: { appId: string; mediaId: string } }>(
    '/dead-letters/:appId/:mediaId',
    {
      onRequest: canRead,
      schema: described({
        summary: 'The whole dead letter of a media.',
        description: 'Open or not, and of each of its variants.',
        tag: 'dead letters',
        scope: 'read',
        params: z.object({ appId: z.string(), mediaId: z.string() }),
        answers: { 200: { says: 'The letters, and where they lie in the bucket.', schema: lettersSchema } },
        problems: {
          400: 'no appId',
          404: 'there is none',
          501: 'ARCHIVE_BUCKET is not set',
          503: 'Redis or the bucket does not answer',
        },
      }),
    },
    async (request, reply) => {
      const { appId, mediaId } = request.params;
      if (bucket === undefined) return sendProblem(reply, NO_BUCKET);
      if (!isLetterAppId(appId)) return sendProblem(reply, { status: 400, detail: 'an appId is expected' });
      const signal = AbortSignal.timeout(READ_TIMEOUT_MS);
      const read = await orAbort(readLetters({ ...bucket, deadLetterIndex: index }, appId, mediaId, signal), signal);
      if (!read.ok) return sendProblem(reply, unavailable(`${read.failure.code}: ${FAILURES[read.failure.code].hint}`));
      if (read.value.length === 0) return sendProblem(reply, { status: 404, detail: 'there is no dead letter of it' });
      return { items: read.value.map(({ key, letter }) => ({ key, ...letter })) };
    },
  );

  app.post(
    '/dead-letters/replay',
    {
      onRequest: canOperate,
      schema: described({
        summary: 'Put dead letters back to work.',
        description: MASS_DESCRIPTION,
        tag: 'dead letters',
        scope: 'operate',
        body: replayBodySchema,
        answers: { 200: { says: 'What became of each.', schema: massAnswerSchema } },
        problems: MASS_PROBLEMS,
      }),
    },
    async (request, reply) => {
      const body = parsedBody(replayBodySchema, request.body);
      if (!body.ok) return sendProblem(reply, body.problem);
      if (bucket === undefined) return sendProblem(reply, NO_BUCKET);
      const { rate, includeExpired = false, by = 'api', note = '', dryRun = false } = body.value;
      const parts = { ...replayParts, deadLetters: bucket.deadLetters };
      const how = { note: { by, reason: note }, includeExpired, dryRun, ...(rate === undefined ? {} : { rate }) };
      return await work(reply, { ...body.value, outcome: 'replayed', dryOutcome: 'would-replay' }, (letters, signal) =>
        replayLetters(parts, letters, how, signal),
      );
    },
  );

  app.post(
    '/dead-letters/discard',
    {
      onRequest: canOperate,
      schema: described({
        summary: 'Note that nothing more is to be done about dead letters.',
        description: MASS_DESCRIPTION,
        tag: 'dead letters',
        scope: 'operate',
        body: discardBodySchema,
        answers: { 200: { says: 'What became of each.', schema: massAnswerSchema } },
        problems: MASS_PROBLEMS,
      }),
    },
    async (request, reply) => {
      const body = parsedBody(discardBodySchema, request.body);
      if (!body.ok) return sendProblem(reply, body.problem);
      if (bucket === undefined) return sendProblem(reply, NO_BUCKET);
      const desk = { ...replayParts, deadLetters: bucket.deadLetters };
      const { by = 'api', note = '', dryRun = false } = body.value;
      const how = { note: { by, reason: note }, dryRun };
      return await work(
        reply,
        { ...body.value, outcome: 'discarded', dryOutcome: 'would-discard' },
        (letters, signal) => discardLetters(desk, letters, how, signal),
      );
    },
  );

  async function work(
    reply: FastifyReply,
    wanted: z.output<typeof discardBodySchema> & Pick<MassSums, 'outcome' | 'dryOutcome'>,
    each: (letters: readonly DeadLetterSummary[], signal: AbortSignal) => AsyncIterable<MassEach>,
  ): Promise<FastifyReply | object> {
    const { all = false, limit = MAX_LETTERS, dryRun = false, outcome, dryOutcome } = wanted;
    const filter = filterOf(wanted);
    if (matchesAll(filter) && !all) return sendProblem(reply, MUST_BE_MEANT);
    const found = await choose(filter, limit);
    const sums = { dryRun, outcome, dryOutcome, letters: found.slice(0, limit), more: found.length > limit };
    const done = await workThrough(sums, each, AbortSignal.any([stop, goneSignal(reply)]));
    const { items: _items, ...counts } = done;
    const { by = 'api' } = wanted;
    log.info({ requestId: reply.request.id, by, filter, all, limit, ...counts }, `dead letters ${outcome}`);
    return done;
  }
}

const MASS_DESCRIPTION =
  'At most 1,000 in one request, and a minute: `more` tells that the same request would find more. Stops between two letters when the caller goes away.';

const MASS_PROBLEMS = {
  400: 'a filter that there is not, or none without `all`',
  501: 'ARCHIVE_BUCKET is not set',
  503: 'Redis does not answer; letters that were done by then are done',
};

/** Aborts when the caller has gone before the answer was complete. */
function goneSignal(reply: FastifyReply): AbortSignal {
  const gone = new AbortController();
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) gone.abort(new Error('the caller has gone'));
  });
  return gone.signal;
}
