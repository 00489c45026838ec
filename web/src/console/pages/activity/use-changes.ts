import { useDocumentVisibility } from "@mantine/hooks";
import { useCallback, useEffect, useReducer, useRef, useState } from "react";

import { useSession } from "../../app/session";
import { subscribe } from "../../graphql/client";
import {
  ChangesDocument,
  type ChangesSubscription,
  type ChangesSubscriptionVariables,
  type FeedFilter,
} from "../../graphql/operations";
import { FeedError, type FeedFailure, toFailure } from "./feed-errors";
import { type FeedState, INITIAL, reduceFeed } from "./feed-state";

const RECONNECT_MILLISECONDS = 2000;
/** A busy feed has many batches a second. The page shows them together. */
const SHOW_MILLISECONDS = 1000;

/**
 * Follow the change feed from now on.
 *
 * The cursor of the last batch is kept, so that no change is lost while the feed is paused, the tab is
 * hidden or the connection is interrupted. A hidden tab has no connection, because the browser opens
 * only six to a server.
 *
 * @param filter The changes to follow. If it changes, the feed begins again from now.
 * @param paused Whether to stop reading. Reading goes on at the kept cursor.
 * @returns The state, and a function that connects again after the feed has stopped.
 */
export function useChanges(filter: FeedFilter, paused: boolean): [FeedState, () => void] {
  const { session, rejectKey } = useSession();
  const apiKey = session?.apiKey ?? null;
  const [state, dispatch] = useReducer(reduceFeed, INITIAL);
  const [attempt, setAttempt] = useState(0);
  const isHidden = useDocumentVisibility() === "hidden";
  const cursor = useRef<string | null>(null);
  const filterText = JSON.stringify(filter);

  useEffect(() => {
    cursor.current = null;
    dispatch({ type: "reset" });
  }, [filterText]);

  useEffect(() => {
    if (paused || isHidden) {
      return;
    }
    let results: ReturnType<typeof subscribe<ChangesSubscription, ChangesSubscriptionVariables>>;
    let reconnectTimer: ReturnType<typeof setTimeout> | undefined;
    let showTimer: ReturnType<typeof setTimeout> | undefined;
    let batches: ChangesSubscription["changes"][] = [];
    let lastShown = 0;
    let stopped = false;

    const show = () => {
      clearTimeout(showTimer);
      showTimer = undefined;
      if (batches.length > 0) {
        lastShown = Date.now();
        dispatch({ type: "batches", batches });
        batches = [];
      }
    };
    const follow = async () => {
      const variables = {
        after: cursor.current,
        filter: JSON.parse(filterText) as FeedFilter,
      };
      results = subscribe(apiKey, ChangesDocument, variables);
      for await (const { data, errors } of results) {
        if (stopped) {
          return;
        }
        if (errors?.[0]) {
          const { message, extensions } = errors[0];
          throw new FeedError(message, String(extensions?.code));
        }
        if (data) {
          cursor.current = data.changes.cursor;
          batches.push(data.changes);
          showTimer ??= setTimeout(show, lastShown + SHOW_MILLISECONDS - Date.now());
        }
      }
    };
    const run = async () => {
      let failure: FeedFailure = {
        message: "The server ended the connection.",
        reaction: "reconnect",
      };
      try {
        await follow();
      } catch (reason) {
        failure = toFailure(reason);
      }
      if (stopped) {
        return;
      }
      show();
      const { message: error, reaction } = failure;
      if (reaction === "sign-in" && apiKey) {
        rejectKey();
      } else if (reaction === "stop" || reaction === "sign-in") {
        dispatch({ type: "stopped", error });
      } else {
        if (reaction === "restart") {
          cursor.current = null;
        }
        dispatch({ type: "interrupted", error });
        reconnectTimer = setTimeout(run, RECONNECT_MILLISECONDS);
      }
    };
    void run();
    return () => {
      // The cursor is after these batches.
      show();
      stopped = true;
      clearTimeout(reconnectTimer);
      void results.return?.();
    };
  }, [apiKey, rejectKey, filterText, paused, isHidden, attempt]);

  return [state, useCallback(() => setAttempt((count) => count + 1), [])];
}
