/** Whether the same file may come out well another time. */
type Again = 'never' | 'with-other-tools' | 'perhaps';

/** Why no file was made of a media, and whether to try again. What is archived is never touched by any of them. */
export const DERIVE_FAILURES = {
  'no-recipe': { again: 'never', hint: 'Nothing is made of media of this type.' },
  'tool-missing': { again: 'with-other-tools', hint: 'Install ffmpeg: `apt-get install ffmpeg`.' },
  'tool-failed': {
    again: 'with-other-tools',
    hint: 'The tool could not read the media, or needed more memory than it is given. The detail has its words.',
  },
  'too-slow': { again: 'perhaps', hint: 'The tool took longer than it may. A busy machine may be the cause.' },
  'too-large': { again: 'never', hint: 'The media, or what came of it, is larger than the recipe allows.' },
} as const satisfies Record<string, { readonly again: Again; readonly hint: string }>;

export type DeriveFailureCode = keyof typeof DERIVE_FAILURES;

export interface DeriveFailure {
  readonly code: DeriveFailureCode;
  /** One line for people: what the tool said at its end. May repeat words of the media. */
  readonly detail: string;
}
