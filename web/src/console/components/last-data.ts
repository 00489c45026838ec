import { type AnyVariables, useQuery, type UseQueryArgs, type UseQueryResponse } from "urql";
import { useState } from "react";

/** What a page shows of a query. */
export interface Shown<Data> {
  /** What identifies the variables that the data belong to. */
  key: string;
  data: Data | undefined;
}

/**
 * Return what to show after a result. If a repeated request fails, the last complete data stay.
 *
 * @param last What the page shows now.
 */
export function nextShown<Data>(
  last: Shown<Data>,
  key: string,
  result: { data?: Data | undefined; error?: unknown },
): Shown<Data> {
  if (result.error && last.key === key && last.data !== undefined) {
    return last;
  }
  // While urql loads the data of other variables, it returns the data of the previous ones.
  return last.data === result.data ? last : { key, data: result.data };
}

/**
 * Run a query as urql's `useQuery` does, but keep the last data if a repeated request fails.
 *
 * So a failed poll, or a failed refresh after a mutation, removes no form, dialog or upload from the
 * page. The page shows `error` above the data.
 */
export function useQueryKeepingData<Data, Variables extends AnyVariables>(
  args: UseQueryArgs<Variables, Data>,
): UseQueryResponse<Data, Variables> {
  const [result, refresh] = useQuery<Data, Variables>(args);
  const key = JSON.stringify(args.variables ?? null);
  const [shown, setShown] = useState<Shown<Data>>({ key, data: undefined });
  const next = nextShown(shown, key, result);
  if (next !== shown) {
    setShown(next);
  }
  return [{ ...result, data: next.data }, refresh];
}
