import { answerParent } from '../../helper-process.ts';

/** Where a subject finds everything, as arguments of its process. */
export interface Places {
  readonly origin: string;
  readonly store: string;
  readonly bucket: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly redis: string;
  readonly concurrency: number;
}

export interface RunRequest {
  readonly mediaIds: readonly string[];
}

export interface RunAnswer {
  readonly seconds: number;
}

export function places(): Places {
  return JSON.parse(process.argv[2] ?? '{}') as Places;
}

/** In a subject's process: archives what it is told to, so many at a time. */
export function serveLoop(concurrency: number, archive: (mediaId: string) => Promise<void>): void {
  answerParent<RunRequest, RunAnswer>(async ({ mediaIds }) => {
    const startedAt = performance.now();
    let next = 0;
    const worker = async (): Promise<void> => {
      for (let mediaId = mediaIds[next]; mediaId !== undefined; mediaId = mediaIds[next]) {
        next += 1;
        await archive(mediaId);
      }
    };
    await Promise.all(Array.from({ length: concurrency }, worker));
    return { seconds: (performance.now() - startedAt) / 1_000 };
  });
}

export function mediaPath(mediaId: string): string {
  return `/cgi-bin/media/get?access_token=token-of-the-bench&media_id=${mediaId}`;
}

export function keyOf(mediaId: string): string {
  return `media/bench/${mediaId}.jpg`;
}
