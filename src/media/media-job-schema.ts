import { z } from 'zod';
import { MAX_LABELS, mediaJobSchema } from './media-job.ts';

/** What each field is, for readers of the schema alone. */
const DESCRIPTIONS: Readonly<Record<string, string>> = {
  v: 'Version of this contract.',
  appId: 'The WeChat account.',
  mediaId: 'As WeChat gave it.',
  kind: 'What the sender sent. Leave it out when nobody said.',
  receivedAt: 'When WeChat created the message, in UTC: its CreateTime. The three days count from it.',
  variant: 'Another rendering of the same media. It is archived as a media of its own.',
  source: 'The message that the media came with.',
  labels: 'Words of your own.',
};

/** What JSON Schema can't say. */
const BEYOND = 'Beyond this schema, receivedAt lies no more than ten minutes in the future.';

/**
 * The MediaJob v1 as a JSON Schema (2020-12), made from the schema that parses it; `docs/media-job.schema.json` holds it
 * for other languages.
 */
export function mediaJobJsonSchema(): object {
  const { $schema, ...schema } = z.toJSONSchema(mediaJobSchema, {
    override: ({ jsonSchema, path }) => {
      const [parent, name = '', ...deeper] = path.map(String);
      if (parent !== 'properties' || deeper.length > 0) return;
      jsonSchema.description = DESCRIPTIONS[name] ?? '';
      if (name !== 'labels') return;
      // Told by refinements, which zod leaves out.
      jsonSchema.maxProperties = MAX_LABELS;
      jsonSchema.propertyNames = { ...(jsonSchema.propertyNames as object), not: { const: '__proto__' } };
    },
  });
  return { $schema, title: 'MediaJob v1', description: `The wish to archive one media. ${BEYOND}`, ...schema };
}
