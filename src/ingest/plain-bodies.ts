import type { FastifyReply, FastifyRequest } from 'fastify';
import { sendProblem } from './problem.ts';

/**
 * Refuses a body that is compressed: its bytes would be taken for JSON, and unpacked it could be of any size. Says with
 * the 415 what is taken. @see https://www.rfc-editor.org/rfc/rfc9110#section-15.5.16
 */
export async function refuseEncodedBodies(request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const { 'content-encoding': encoding = '' } = request.headers;
  if (/^(identity)?$/i.test(encoding)) return undefined;
  return sendProblem(reply.header('accept-encoding', 'identity'), {
    status: 415,
    detail: 'a body without Content-Encoding is expected',
  });
}
