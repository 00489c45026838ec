import { useEffect, useReducer, useRef } from "react";

import { useSession } from "../../app/session";
import { subscribe } from "../../graphql/client";
import {
    ChangesDocument,
    type ChangesSubscription,
    type ChangesSubscriptionVariables,
    type FeedFilter,
} from "../../graphql/operations";
import { type FeedState, INITIAL, reduceFeed } from "./feed-state";

const RECONNECT_MILLISECONDS = 2000;

/**
 * Follow the change feed from now on.
 *
 * The cursor of the last batch is kept, so that no change is lost while the feed is paused or the
 * connection is interrupted.
 *
 * @param filter The changes to follow. If it changes, the feed begins again from now.
 * @param paused Whether to stop reading. Reading goes on at the kept cursor.
 */
export function useChanges(filter: FeedFilter, paused: boolean): FeedState {
    const apiKey = useSession().session?.apiKey ?? null;
    const [state, dispatch] = useReducer(reduceFeed, INITIAL);
    const cursor = useRef<string | null>(null);
    const filterText = JSON.stringify(filter);

    useEffect(() => {
        cursor.current = null;
        dispatch({ type: "reset" });
    }, [filterText]);

    useEffect(() => {
        if (paused) {
            return;
        }
        let results: ReturnType<
            typeof subscribe<ChangesSubscription, ChangesSubscriptionVariables>
        >;
        let timer: ReturnType<typeof setTimeout> | undefined;
        let stopped = false;

        const follow = async () => {
            const variables = {
                after: cursor.current,
                filter: JSON.parse(filterText) as FeedFilter,
            };
            results = subscribe(apiKey, ChangesDocument, variables);
            for await (const { data, errors } of results) {
                if (errors?.[0]) {
                    throw new Error(errors[0].message);
                }
                if (data && !stopped) {
                    cursor.current = data.changes.cursor;
                    dispatch({ type: "batch", batch: data.changes });
                }
            }
        };
        const run = async () => {
            let error = "The server ended the connection.";
            try {
                await follow();
            } catch (reason) {
                error = reason instanceof Error ? reason.message : "The server does not respond.";
            }
            if (!stopped) {
                dispatch({ type: "interrupted", error });
                timer = setTimeout(run, RECONNECT_MILLISECONDS);
            }
        };
        void run();
        return () => {
            stopped = true;
            clearTimeout(timer);
            void results.return?.();
        };
    }, [apiKey, filterText, paused]);

    return state;
}
