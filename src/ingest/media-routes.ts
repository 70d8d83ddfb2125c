import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { orAbort } from '../abort.ts';
import { FAILURES } from '../failure.ts';
import { appIdSchema, MEDIA_VARIANTS, mediaIdSchema, mediaJobSchema } from '../media/media-job.ts';
import type { Desk } from '../operate/known-media.ts';
import { knownMedia } from '../operate/known-media.ts';
import { mediaNames } from '../operate/media-name.ts';
import { type Admission, admissionOf } from '../queue/door.ts';
import { type Clock, SECOND } from '../time.ts';
import type { RequestHook } from './guard.ts';
import { described } from './openapi.ts';
import { parsedBody, parsedQuery } from './parsed.ts';
import { sendProblem } from './problem.ts';
import type { SeldomLog } from './seldom.ts';
import { outageIn, unavailable } from './unexpected.ts';
import type { WayIn } from './way-in.ts';

export interface MediaRoutesOptions {
  readonly wayIn: WayIn;
  readonly desk: Omit<Desk, 'now' | 'bucketTimeoutMs'>;
  readonly now: Clock;
  readonly seldom: SeldomLog;
  readonly observe: (admission: Admission) => void;
  readonly canIngest: RequestHook;
  readonly canRead: RequestHook;
}

/** Jobs in one request. */
const MAX_ITEMS = 1_000;
const SHOW_TIMEOUT_MS = 5 * SECOND;
/** Less, so that what the queue knows is told when the bucket is away. */
const SHOW_BUCKET_TIMEOUT_MS = 4 * SECOND;

/** The jobs themselves are parsed by the door: one that is wrong does not keep the others out. */
const manySchema = z.strictObject({ items: z.array(z.unknown()).min(1).max(MAX_ITEMS) });

const rejectedSchema = z.object({ index: z.int().min(0), mistakes: z.array(z.string()) });
const admissionSchema = z.object({
  accepted: z.int().min(0).describe('durably queued'),
  duplicates: z.int().min(0).describe('known already: waiting, running, archived, or a dead letter'),
  rejected: z.array(rejectedSchema).describe('no MediaJob, or of an app that is not configured'),
});

const nameSchema = z.object({
  appId: appIdSchema,
  mediaId: z.string().describe('a media_id, or one with its variant behind it: <media_id>.hd-voice'),
});
const variantSchema = z.strictObject({ variant: z.enum(MEDIA_VARIANTS).optional() });
const factsSchema = z.looseObject({
  appId: appIdSchema,
  mediaId: mediaIdSchema,
  variant: z.enum(MEDIA_VARIANTS).optional(),
  state: z.enum(['waiting', 'delayed', 'active', 'archived', 'dead', 'replayed', 'discarded', 'unknown']),
});

/** `/v1/media`: hands media in, and tells where they are. */
export function mediaRoutes(app: FastifyInstance, options: MediaRoutesOptions): void {
  const { wayIn, desk, now, seldom, observe, canIngest, canRead } = options;

  app.post(
    '/media',
    {
      onRequest: canIngest,
      schema: described({
        summary: 'Hand media in.',
        description:
          'One MediaJob, or up to 1,000 as items. Repeating a request is harmless. A media that is known already counts as a duplicate.',
        tag: 'media',
        scope: 'ingest',
        body: z.union([mediaJobSchema, z.strictObject({ items: z.array(mediaJobSchema).min(1).max(MAX_ITEMS) })]),
        answers: { 202: { says: 'Queued, durably, but for those that are rejected.', schema: admissionSchema } },
        problems: {
          400: 'no JSON, or nothing but rejected jobs, which are listed as in the answer 202',
          503: 'Redis does not take them now: send the same request again later',
        },
      }),
    },
    async (request, reply) => {
      const { body } = request;
      let jobs: readonly unknown[] = [body];
      if (typeof body === 'object' && body !== null && 'items' in body) {
        const many = parsedBody(manySchema, body);
        if (!many.ok) return sendProblem(reply, many.problem);
        jobs = many.value.items;
      }
      const handedIn = await wayIn.handIn(jobs);
      if (!handedIn.ok) {
        const reason = outageIn(handedIn.error)?.reason;
        const why = reason === undefined ? { err: handedIn.error } : { reason };
        const facts = { requestId: request.id, jobs: jobs.length, ...why };
        seldom.warn(reason === undefined ? 'fault' : 'outage', facts, 'Redis did not take what was handed in');
        return sendProblem(reply, unavailable('the queue does not take media now; send the same request again'));
      }
      const admission = admissionOf(handedIn.answers);
      observe(admission);
      const { accepted, duplicates, rejected } = admission;
      if (accepted + duplicates === 0 && rejected.length > 0) {
        return sendProblem(reply, {
          status: 400,
          detail: 'nothing was taken: every job has mistakes',
          more: admission,
        });
      }
      return reply.code(202).send(admission);
    },
  );

  app.get<{ Params: { appId: string; mediaId: string } }>(
    '/media/:appId/:mediaId',
    {
      onRequest: canRead,
      schema: described({
        summary: 'Where a media is, and what has happened to it.',
        description: 'Each of its variants for itself. What `weixin-media show --json` tells.',
        tag: 'media',
        scope: 'read',
        params: nameSchema,
        query: variantSchema,
        answers: { 200: { says: 'What is known of it.', schema: z.object({ items: z.array(factsSchema) }) } },
        problems: {
          400: 'no appId, or no media_id',
          404: 'nothing is known of it',
          503: 'Redis or the bucket does not answer, and nothing is known without it',
        },
      }),
    },
    async (request, reply) => {
      const { appId, mediaId } = request.params;
      const query = parsedQuery(variantSchema, request.query);
      if (!query.ok) return sendProblem(reply, query.problem);
      const { variant } = query.value;
      const all = appIdSchema.safeParse(appId).success ? mediaNames(appId, mediaId) : [];
      if (all.length === 0) return sendProblem(reply, { status: 400, detail: 'an appId and a media_id are expected' });
      const names = variant === undefined ? all : all.filter((name) => name.variant === variant);
      const asked = { ...desk, now: now(), bucketTimeoutMs: SHOW_BUCKET_TIMEOUT_MS };
      const known = await orAbort(knownMedia(asked, names), AbortSignal.timeout(SHOW_TIMEOUT_MS));
      if (known.length === 0) {
        const where =
          desk.bucket === undefined ? 'in the queue; ARCHIVE_BUCKET is not set' : 'in the queue or the bucket';
        return sendProblem(reply, { status: 404, detail: `nothing is known of it ${where}` });
      }
      const items = known.map(({ facts, trouble }) =>
        trouble === undefined ? facts : { ...facts, trouble: `${trouble.code}: ${FAILURES[trouble.code].hint}` },
      );
      return { items };
    },
  );
}
