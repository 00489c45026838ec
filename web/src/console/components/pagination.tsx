import { Button, Group } from "@mantine/core";
import { ChevronLeft, ChevronRight } from "lucide-react";
import { useState } from "react";

export interface Pagination {
  /** What identifies the list and the page. */
  key: string;
  /** The cursor after which the current page begins. Null on the first page. */
  after: string | null;
  hasPrevious: boolean;
  first: () => void;
  previous: () => void;
  next: (endCursor: string) => void;
}

/**
 * Return the pagination for the end cursors of the pages before the current one.
 *
 * @param list What identifies the list, such as its filters.
 * @param setCursors Called with the cursors of another page.
 */
export function toPagination(
  list: string,
  cursors: readonly string[],
  setCursors: (cursors: string[]) => void,
): Pagination {
  const after = cursors.at(-1) ?? null;
  return {
    key: JSON.stringify([list, after]),
    after,
    hasPrevious: cursors.length > 0,
    first: () => setCursors([]),
    previous: () => setCursors(cursors.slice(0, -1)),
    next: (endCursor) => {
      // The second click of a double click has the cursor of the same page.
      if (endCursor !== after) {
        setCursors([...cursors, endCursor]);
      }
    },
  };
}

interface PageInfo {
  hasNextPage: boolean;
  endCursor?: string | null;
}

/** The page of the list for which `pageInfo` was received. */
interface Seen {
  key: string;
  pageInfo: PageInfo | undefined;
}

/** Whether the page has changed and the data are still those of the page before. */
export function followsChange(seen: Seen, key: string, pageInfo: PageInfo | undefined): boolean {
  return seen.key !== key && seen.pageInfo === pageInfo;
}

/**
 * Keep the cursors of the visited pages of a connection.
 *
 * @param list What identifies the list, such as its filters. If it changes, the first page is shown.
 */
export function usePagination(list = ""): Pagination {
  const [state, setState] = useState<{ list: string; cursors: string[] }>({ list, cursors: [] });
  const cursors = state.list === list ? state.cursors : [];
  return toPagination(list, cursors, (changed) => setState({ list, cursors: changed }));
}

interface Props {
  pagination: Pagination;
  pageInfo: PageInfo | undefined;
}

/** The buttons "Previous" and "Next" of a list. Renders nothing if the list has one page. */
export function PageButtons({ pagination, pageInfo }: Props) {
  const { key } = pagination;
  const [seen, setSeen] = useState<Seen>({ key, pageInfo });
  if (seen.pageInfo !== pageInfo) {
    setSeen({ key, pageInfo });
  }
  const endCursor = pageInfo?.hasNextPage ? pageInfo.endCursor : null;
  if (!pagination.hasPrevious && !endCursor) {
    return null;
  }
  return (
    <Group justify="flex-end" component="nav" aria-label="Pages">
      <Button
        variant="default"
        size="xs"
        leftSection={<ChevronLeft size={16} aria-hidden />}
        disabled={!pagination.hasPrevious}
        onClick={pagination.previous}
      >
        Previous
      </Button>
      <Button
        variant="default"
        size="xs"
        rightSection={<ChevronRight size={16} aria-hidden />}
        disabled={!endCursor || followsChange(seen, key, pageInfo)}
        onClick={() => endCursor && pagination.next(endCursor)}
      >
        Next
      </Button>
    </Group>
  );
}
