/** What the sender sent, in WeChat's words. `unknown` is the partition of media whose kind nobody said. */
export const MEDIA_KINDS = ['image', 'voice', 'video', 'thumb', 'file'] as const;

export type MediaKind = (typeof MEDIA_KINDS)[number];

export type KindPartition = MediaKind | 'unknown';
