export interface Limits {
  /** Milliseconds for one attempt. */
  attemptMs: number;
  /** Milliseconds for all attempts together. */
  totalMs: number;
}

const RETRYABLE_STATUS = [429, 502, 503, 504];
const RETRYABLE_CODES = ["UNAVAILABLE", "TIMEOUT"];

/** Returns a `fetch` that repeats queries, and mutations with an `Idempotency-Key`. */
export function retryingFetch(defaults: Limits): typeof fetch {
  return async (input, init: RequestInit & { limits?: Limits } = {}) => {
    const { attemptMs, totalMs } = init.limits ?? defaults;
    const isSafe =
      new Headers(init.headers).has("idempotency-key") || !String(init.body).includes("mutation");
    const deadline = Date.now() + totalMs;
    for (let attempt = 0; ; attempt++) {
      let pauseMs = (0.5 + Math.random() / 2) * Math.min(100 * 2 ** attempt, 5000);
      const isFinal = () => !isSafe || Date.now() + pauseMs >= deadline;
      const timeout = AbortSignal.timeout(Math.max(0, Math.min(attemptMs, deadline - Date.now())));
      const signal = init.signal ? AbortSignal.any([init.signal, timeout]) : timeout;
      try {
        const response = await fetch(input, { ...init, signal });
        const body = await response.text();
        pauseMs = Math.max(pauseMs, 1000 * Number(response.headers.get("retry-after") ?? 0) || 0);
        if (!isRetryable(response, body) || isFinal()) return new Response(body, response);
      } catch (error) {
        // No connection, a dropped connection, or a time-out of the attempt.
        if (init.signal?.aborted || isFinal()) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  };
}

/** Options of one call that has other limits. */
export const withLimits = (limits: Limits, init: RequestInit): RequestInit =>
  Object.assign({}, init, { limits });

function isRetryable(response: Response, body: string): boolean {
  if (RETRYABLE_STATUS.includes(response.status)) return true;
  if (!body.includes('"errors"')) return false;
  const isJson = response.headers.get("content-type")?.includes("json") ?? false;
  const { errors } = isJson ? JSON.parse(body) : {};
  return (errors ?? []).some(({ extensions }: { extensions?: { code?: string } }) =>
    RETRYABLE_CODES.includes(extensions?.code ?? ""),
  );
}
