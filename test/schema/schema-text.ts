import { mediaJobJsonSchema } from '../../src/media/media-job-schema.ts';

/** Ships with the package, for whoever enqueues from another language. */
export const SCHEMA_FILE = new URL('../../docs/media-job.schema.json', import.meta.url);

export function schemaText(): string {
  return `${JSON.stringify(mediaJobJsonSchema(), null, 2)}\n`;
}
