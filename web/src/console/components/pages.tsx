import { Button, Group } from "@mantine/core";
import { ChevronLeft, ChevronRight } from "lucide-react";
import { useState } from "react";

export interface Pages {
    /** The cursor after which the current page begins. Null on the first page. */
    after: string | null;
    hasPrevious: boolean;
    first: () => void;
    previous: () => void;
    next: (endCursor: string) => void;
}

/**
 * Keep the cursors of the visited pages of a connection.
 *
 * @param list What identifies the list, such as its filters. If it changes, the first page is shown.
 */
export function usePages(list = ""): Pages {
    const [state, setState] = useState<{ list: string; cursors: string[] }>({ list, cursors: [] });
    const cursors = state.list === list ? state.cursors : [];
    return {
        after: cursors.at(-1) ?? null,
        hasPrevious: cursors.length > 0,
        first: () => setState({ list, cursors: [] }),
        previous: () => setState({ list, cursors: cursors.slice(0, -1) }),
        next: (endCursor) => setState({ list, cursors: [...cursors, endCursor] }),
    };
}

interface Props {
    pages: Pages;
    pageInfo: { hasNextPage: boolean; endCursor?: string | null } | undefined;
}

/** The buttons "Previous" and "Next" of a list. Nothing if the list has one page. */
export function PageButtons({ pages, pageInfo }: Props) {
    const endCursor = pageInfo?.hasNextPage ? pageInfo.endCursor : null;
    if (!pages.hasPrevious && !endCursor) {
        return null;
    }
    return (
        <Group justify="flex-end" component="nav" aria-label="Pages">
            <Button
                variant="default"
                size="xs"
                leftSection={<ChevronLeft size={16} aria-hidden />}
                disabled={!pages.hasPrevious}
                onClick={pages.previous}
            >
                Previous
            </Button>
            <Button
                variant="default"
                size="xs"
                rightSection={<ChevronRight size={16} aria-hidden />}
                disabled={!endCursor}
                onClick={() => endCursor && pages.next(endCursor)}
            >
                Next
            </Button>
        </Group>
    );
}
