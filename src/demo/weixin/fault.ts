/** A fault on demand. The simulator does it in place of the honest answer. */
export type FaultAction =
  /** Answers this errcode, with WeChat's text unless another is given. */
  | { readonly type: 'errcode'; readonly errcode: number; readonly errmsg?: string; readonly asString?: boolean }
  /** Announces the whole length, sends a part, and cuts the connection. */
  | { readonly type: 'truncate'; readonly afterBytes?: number }
  /** Resets the connection before any answer. */
  | { readonly type: 'reset' }
  /** Does what was asked, and resets the connection before it says so. */
  | { readonly type: 'lost-answer' }
  /** Answers the first request of a connection and resets at the second: an idle socket that has gone stale. */
  | { readonly type: 'stale-socket' }
  /** Never answers; or answers headers and then nothing. */
  | { readonly type: 'hang'; readonly where: 'headers' | 'body' }
  /** Sends the body a few bytes at a time. */
  | { readonly type: 'drip'; readonly chunkBytes: number; readonly everyMs: number }
  /** A good answer with a body of 0 bytes. */
  | { readonly type: 'empty' }
  /** Good bytes under another type; without a Content-disposition if so wanted. */
  | { readonly type: 'wrong-type'; readonly contentType: string; readonly disposition: boolean }
  /** An error in JSON, dressed as an image: type and Content-disposition of media. */
  | { readonly type: 'json-in-disguise'; readonly errcode: number }
  /** A gateway's page. */
  | { readonly type: 'html'; readonly status: number }
  /** Good bytes without Content-Length: chunked, or ended by closing the connection. */
  | { readonly type: 'no-length'; readonly framing: 'chunked' | 'close' }
  /** Good bytes, compressed although nobody asked. */
  | { readonly type: 'gzip' }
  /** This text as `text/plain`, whatever it is. */
  | { readonly type: 'text'; readonly body: string; readonly contentType?: string }
  | { readonly type: 'redirect'; readonly location: string };

export type FaultEndpoint = 'media' | 'token' | 'video' | 'component';

export interface Fault {
  readonly endpoint: FaultEndpoint;
  readonly appId?: string;
  readonly mediaId?: string;
  /** Of `component`: which of its calls, such as `api_authorizer_token`. */
  readonly call?: string;
  /** Of a token endpoint: true for calls that ask to force, false for the others. Default: both. */
  readonly forced?: boolean;
  readonly action: FaultAction;
  /** How often it happens; then it is over. Default: always. */
  readonly times?: number;
  /** So many matching requests are answered honestly first. Default 0. */
  readonly after?: number;
  /** Happens at every n-th matching request only: `every: 2` flaps. Default 1. */
  readonly every?: number;
}

interface Armed {
  readonly fault: Fault;
  left: number;
  seen: number;
}

/** The faults that are armed, in the order in which they were. */
export class FaultBoard {
  #armed: Armed[] = [];

  /** Returns what ends it. */
  arm(fault: Fault): () => void {
    const armed: Armed = { fault, left: fault.times ?? Number.POSITIVE_INFINITY, seen: 0 };
    this.#armed.push(armed);
    return () => {
      this.#armed = this.#armed.filter((other) => other !== armed);
    };
  }

  clear(): void {
    this.#armed = [];
  }

  /** Takes the fault for a request, if there is one. */
  take(
    endpoint: FaultEndpoint,
    appId: string | undefined,
    mediaId: string | undefined,
    forced = false,
    call?: string,
  ): FaultAction | undefined {
    for (const armed of this.#armed) {
      const { fault } = armed;
      const meant =
        armed.left > 0 &&
        fault.endpoint === endpoint &&
        (fault.appId === undefined || fault.appId === appId) &&
        (fault.mediaId === undefined || fault.mediaId === mediaId) &&
        (fault.forced === undefined || fault.forced === forced) &&
        (fault.call === undefined || fault.call === call);
      if (!meant) continue;
      armed.seen += 1;
      if (armed.seen <= (fault.after ?? 0) || armed.seen % (fault.every ?? 1) !== 0) continue;
      armed.left -= 1;
      if (armed.left === 0) this.#armed = this.#armed.filter((other) => other !== armed);
      return fault.action;
    }
    return undefined;
  }
}
