import { type Readable, Transform } from 'node:stream';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { sendProblem } from './problem.ts';

/** Bytes of all bodies that are being read or worked on: some hundred thousand jobs. Parsed they take several times that. */
const MAX_BYTES = 64 * 1024 * 1024;
/** Taken at once for a body that does not say how long it is, and again when it has grown beyond that: most are small. */
const STEP_BYTES = 64 * 1024;

/** Lets a body be read, as it is or through the stream that is returned; or answers the request. */
export type BodyHook = (
  request: FastifyRequest,
  reply: FastifyReply,
  payload: Readable,
) => Promise<Readable | FastifyReply | undefined>;

/**
 * Turns requests away while too many bodies are under way, so that memory is bounded whatever comes. To be called before
 * a body is read.
 *
 * @param largestBytes what a body may be; the rest of one that is larger is not read.
 */
export function createBodyBudget(largestBytes: number, maxBytes = MAX_BYTES): BodyHook {
  let used = 0;

  return async (request, reply, payload) => {
    let taken = 0;

    function take(bytes: number): boolean {
      if (used + bytes - taken > maxBytes) return false;
      used += bytes - taken;
      taken = bytes;
      return true;
    }

    // Their bodies are not read.
    if (request.method === 'GET' || request.method === 'HEAD') return undefined;
    const declared = declaredBytes(request);
    if (!take(Math.min(declared ?? STEP_BYTES, largestBytes))) return turnAway(reply);
    reply.raw.once('close', () => take(0));
    if (declared !== undefined) return undefined;

    let arrived = 0;
    const counted = new Transform({
      transform: (chunk: Buffer, _encoding, done) => {
        arrived += chunk.byteLength;
        if (arrived <= taken || take(Math.min(stepsOf(arrived), largestBytes))) return done(null, chunk);
        dropTheRest();
        return turnAway(reply.header('connection', 'close'));
      },
    });
    /** Else what still comes would stand in the way of the answer, and of the next request. */
    function dropTheRest(): void {
      payload.unpipe(counted).resume();
    }
    payload.once('error', (error) => counted.destroy(error));
    reply.raw.once('close', dropTheRest);
    return payload.pipe(counted);
  };
}

function turnAway(reply: FastifyReply): FastifyReply {
  return sendProblem(reply, { status: 503, detail: 'too many bodies are under way', retryAfter: 1 });
}

function stepsOf(bytes: number): number {
  return Math.ceil(bytes / STEP_BYTES) * STEP_BYTES;
}

function declaredBytes({ headers }: FastifyRequest): number | undefined {
  if (headers['transfer-encoding'] !== undefined) return undefined;
  return Number(headers['content-length'] ?? 0);
}
