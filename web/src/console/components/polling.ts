import { useEffect } from "react";

const FAST = 1_000;
const SLOW = 10_000;

type Refresh = (options: { requestPolicy: "network-only" }) => void;

/**
 * Call `refresh` at an interval while `active` is true and the tab is visible.
 *
 * @param refresh Must keep its identity between renders, as urql's `executeQuery` does.
 */
export function usePolling(refresh: Refresh, active: boolean, milliseconds = FAST): void {
  useEffect(
    () => (active ? startPolling(refresh, milliseconds, document) : undefined),
    [refresh, active, milliseconds],
  );
}

type PollingDocument = Pick<Document, "hidden" | "addEventListener" | "removeEventListener">;

/**
 * Call `refresh` at an interval while the document is visible, and when it becomes visible after a
 * skipped call.
 *
 * @returns A function that ends the polling.
 */
export function startPolling(
  refresh: Refresh,
  milliseconds: number,
  page: PollingDocument,
): () => void {
  let skipped = false;
  const poll = () => {
    skipped = page.hidden;
    if (!skipped) {
      refresh({ requestPolicy: "network-only" });
    }
  };
  const onVisibilityChange = () => {
    if (skipped) {
      poll();
    }
  };
  const timer = setInterval(poll, milliseconds);
  page.addEventListener("visibilitychange", onVisibilityChange);
  return () => {
    clearInterval(timer);
    page.removeEventListener("visibilitychange", onVisibilityChange);
  };
}

/**
 * Return the milliseconds between two polls of a list of jobs, or null if all of them are finished.
 *
 * A job that is queued for more than a minute waits for a worker. It is polled less often.
 */
export function jobPollingInterval(
  jobs: readonly { status: string; createdAt: string }[],
  now: number,
): number | null {
  const unfinished = jobs.filter(({ status }) => status === "QUEUED" || status === "RUNNING");
  if (unfinished.length === 0) {
    return null;
  }
  const isSoon = unfinished.some(
    ({ status, createdAt }) => status === "RUNNING" || now - Date.parse(createdAt) < 60_000,
  );
  return isSoon ? FAST : SLOW;
}
