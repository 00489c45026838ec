/** How long an input waits for more text before the page sends its request. */
export const SEARCH_DELAY_MILLISECONDS = 300;
