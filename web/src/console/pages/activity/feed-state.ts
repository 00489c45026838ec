// The changes that the page shows, and the state of its connection.

import type { ChangesSubscription, HistoryItemFragment } from "../../graphql/operations";

/** The number of changes that the page keeps. */
export const MAX_CHANGES = 100;

type Batch = ChangesSubscription["changes"];

export interface Change {
  cursor: string;
  entry: HistoryItemFragment;
}

export interface FeedState {
  /** The newest changes, newest first. */
  changes: readonly Change[];
  /** `interrupted`: the page connects again by itself. `stopped`: it does not. */
  status: "connecting" | "live" | "interrupted" | "stopped";
  /** Why the connection ended. */
  error?: string | undefined;
}

type Action =
  | { type: "reset" }
  | { type: "batches"; batches: readonly Batch[] }
  | { type: "interrupted" | "stopped"; error: string };

export const INITIAL: FeedState = { changes: [], status: "connecting" };

/** Return the state after an action. The order of the feed is the order of time. */
export function reduceFeed(state: FeedState, action: Action): FeedState {
  switch (action.type) {
    case "reset":
      return INITIAL;
    case "interrupted":
    case "stopped":
      return { ...state, status: action.type, error: action.error };
    case "batches": {
      const added = action.batches.flatMap(toChanges).slice(-MAX_CHANGES).reverse();
      // The same list, if there is nothing to add, is not rendered again.
      const changes =
        added.length > 0 ? [...added, ...state.changes].slice(0, MAX_CHANGES) : state.changes;
      return { changes, status: "live" };
    }
  }
}

function toChanges({ events }: Batch): Change[] {
  return events.flatMap((event) =>
    "entry" in event ? [{ cursor: event.cursor, entry: event.entry }] : [],
  );
}
