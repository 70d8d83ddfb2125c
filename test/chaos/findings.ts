/** Something that must not be. */
export interface Finding {
  readonly what: string;
  /** The media it concerns. */
  readonly jobId?: string;
  readonly detail?: string;
}
