// The changes that the page shows, and the state of its connection.

import type { ChangesSubscription, HistoryItemFragment } from "../../graphql/operations";

/** The number of changes that the page keeps. */
export const MAX_CHANGES = 200;

export interface Change {
    cursor: string;
    entry: HistoryItemFragment;
}

export interface FeedState {
    /** The newest changes, newest first. */
    changes: readonly Change[];
    status: "connecting" | "live" | "interrupted";
    /** Why the connection ended. The page connects again by itself. */
    error?: string | undefined;
}

type Action =
    | { type: "reset" }
    | { type: "batch"; batch: ChangesSubscription["changes"] }
    | { type: "interrupted"; error: string };

export const INITIAL: FeedState = { changes: [], status: "connecting" };

/** Return the state after an action. The order of the feed is the order of time. */
export function reduceFeed(state: FeedState, action: Action): FeedState {
    switch (action.type) {
        case "reset":
            return INITIAL;
        case "interrupted":
            return { ...state, status: "interrupted", error: action.error };
        case "batch":
            return {
                changes: [...toChanges(action.batch), ...state.changes].slice(0, MAX_CHANGES),
                status: "live",
            };
    }
}

function toChanges(batch: ChangesSubscription["changes"]): Change[] {
    return batch.events
        .flatMap((event) =>
            "entry" in event ? [{ cursor: event.cursor, entry: event.entry }] : [],
        )
        .reverse();
}
