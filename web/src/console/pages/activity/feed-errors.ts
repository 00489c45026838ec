// Why the change feed ended, and what the page does then.

/** An error of the change feed. `code` is its `extensions.code`. */
export class FeedError extends Error {
  constructor(
    message: string,
    readonly code: string,
  ) {
    super(message);
  }
}

export interface FeedFailure {
  /** One sentence or more. */
  message: string;
  /**
   * `reconnect`: the feed continues at its cursor. `restart`: the server no longer has the cursor.
   * `stop`: the next request would fail, too. `sign-in`: the server rejects the API key.
   */
  reaction: "reconnect" | "restart" | "stop" | "sign-in";
}

const LASTING = ["BAD_REQUEST", "FORBIDDEN", "LIMIT_EXCEEDED"];
const LOST_CURSOR = ["CURSOR_EXPIRED", "FEED_RESET"];

/** Return the failure for what ended the feed: a `FeedError`, or an error of the connection. */
export function toFailure(reason: unknown): FeedFailure {
  if (reason instanceof FeedError) {
    if (reason.code === "UNAUTHENTICATED") {
      return { message: reason.message, reaction: "sign-in" };
    }
    if (LOST_CURSOR.includes(reason.code)) {
      return {
        message: "The joins and leaves since the interruption are no longer stored.",
        reaction: "restart",
      };
    }
    return {
      message: reason.message,
      reaction: LASTING.includes(reason.code) ? "stop" : "reconnect",
    };
  }
  const status = statusOf(reason);
  if (status === 401) {
    return { message: "The server rejects the API key.", reaction: "sign-in" };
  }
  if (status === 403) {
    return { message: "The role of the API key does not allow the feed.", reaction: "stop" };
  }
  if (status !== undefined && status >= 400 && status < 500 && status !== 408 && status !== 429) {
    return { message: `The server rejects the request (HTTP ${status}).`, reaction: "stop" };
  }
  return {
    message:
      status === undefined
        ? "The server does not respond."
        : `The server has an error (HTTP ${status}).`,
    reaction: "reconnect",
  };
}

// graphql-sse's NetworkError has the response.
function statusOf(reason: unknown): number | undefined {
  if (typeof reason !== "object" || reason === null || !("response" in reason)) {
    return undefined;
  }
  const { response } = reason;
  return response instanceof Response ? response.status : undefined;
}
