import { useHistoryState } from "wouter/use-browser-location";
import { navigate } from "wouter/use-hash-location";

import { type Pagination, toPagination } from "../../components/pagination";

interface ListState {
  search: string;
  includeDeleted: boolean;
  /** The end cursors of the pages before the current one. */
  cursors: string[];
}

interface List extends Omit<ListState, "cursors"> {
  pagination: Pagination;
  /** Change the filters and show the first page. */
  filter: (changes: Partial<Pick<ListState, "search" | "includeDeleted">>) => void;
}

/**
 * Keep the filters and the page of the list in the browser's history, so that Back from a segment
 * shows the same page again.
 */
export function useListState(): List {
  const state = readListState(useHistoryState());
  const save = (changes: Partial<ListState>) =>
    navigate("/segments", { replace: true, state: { ...state, ...changes } });
  return {
    search: state.search,
    includeDeleted: state.includeDeleted,
    filter: (changes) => save({ ...changes, cursors: [] }),
    pagination: toPagination(
      JSON.stringify([state.search, state.includeDeleted]),
      state.cursors,
      (cursors) => save({ cursors }),
    ),
  };
}

/** Return the state of the list that a history entry has. Other pages store other states. */
export function readListState(stored: unknown): ListState {
  const state: Partial<Record<keyof ListState, unknown>> =
    typeof stored === "object" && stored !== null ? stored : {};
  const { search, includeDeleted, cursors } = state;
  return {
    search: typeof search === "string" ? search : "",
    includeDeleted: includeDeleted === true,
    cursors: Array.isArray(cursors) ? cursors.filter((cursor) => typeof cursor === "string") : [],
  };
}
