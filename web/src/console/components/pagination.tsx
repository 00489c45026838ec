import { Button, Group } from "@mantine/core";
import { ChevronLeft, ChevronRight } from "lucide-react";
import { useState } from "react";

export interface Pagination {
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
 * @param setCursors Called with the cursors of another page.
 */
export function toPagination(
    cursors: readonly string[],
    setCursors: (cursors: string[]) => void,
): Pagination {
    return {
        after: cursors.at(-1) ?? null,
        hasPrevious: cursors.length > 0,
        first: () => setCursors([]),
        previous: () => setCursors(cursors.slice(0, -1)),
        next: (endCursor) => setCursors([...cursors, endCursor]),
    };
}

/**
 * Keep the cursors of the visited pages of a connection.
 *
 * @param list What identifies the list, such as its filters. If it changes, the first page is shown.
 */
export function usePagination(list = ""): Pagination {
    const [state, setState] = useState<{ list: string; cursors: string[] }>({ list, cursors: [] });
    const cursors = state.list === list ? state.cursors : [];
    return toPagination(cursors, (changed) => setState({ list, cursors: changed }));
}

interface Props {
    pagination: Pagination;
    pageInfo: { hasNextPage: boolean; endCursor?: string | null } | undefined;
}

/** The buttons "Previous" and "Next" of a list. Renders nothing if the list has one page. */
export function PageButtons({ pagination, pageInfo }: Props) {
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
                disabled={!endCursor}
                onClick={() => endCursor && pagination.next(endCursor)}
            >
                Next
            </Button>
        </Group>
    );
}
