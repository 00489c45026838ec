import { useEffect } from "react";

/**
 * Call `refresh` at an interval while `active` is true and the tab is visible.
 *
 * @param refresh Must keep its identity between renders, as urql's `executeQuery` does.
 */
export function usePolling(
    refresh: (options: { requestPolicy: "network-only" }) => void,
    active: boolean,
    milliseconds = 1000,
): void {
    useEffect(() => {
        if (!active) {
            return;
        }
        const timer = setInterval(() => {
            if (!document.hidden) {
                refresh({ requestPolicy: "network-only" });
            }
        }, milliseconds);
        return () => clearInterval(timer);
    }, [refresh, active, milliseconds]);
}
