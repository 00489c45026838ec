import {
    type Client,
    type CombinedError,
    cacheExchange,
    createClient as createUrqlClient,
    fetchExchange,
    mapExchange,
    subscriptionExchange,
} from "@urql/core";
import { createClient as createStreamClient } from "graphql-sse";

const URL = "/graphql";

/**
 * Return a client that sends an API key with each request.
 *
 * Queries show the cached result first and then the server's. A mutation makes the cached results
 * that have a type of its payload stale.
 */
export function createClient(apiKey: string | null, onRejectedKey: () => void): Client {
    const headers: Record<string, string> = apiKey ? { authorization: `Bearer ${apiKey}` } : {};
    const streams = createStreamClient({ url: URL, headers });
    return createUrqlClient({
        url: URL,
        preferGetMethod: false,
        requestPolicy: "cache-and-network",
        fetchOptions: { headers },
        exchanges: [
            mapExchange({
                onError: (error) => {
                    if (apiKey && codeOf(error) === "UNAUTHENTICATED") {
                        onRejectedKey();
                    }
                },
            }),
            cacheExchange,
            fetchExchange,
            subscriptionExchange({
                forwardSubscription: ({ query, variables }) => ({
                    subscribe: (sink) => ({
                        unsubscribe: streams.subscribe(
                            { query: query ?? "", variables },
                            // The server reports errors of the request in the result, as for other operations.
                            sink as Parameters<typeof streams.subscribe>[1],
                        ),
                    }),
                }),
            }),
        ],
    });
}

/** The `extensions.code` of the first GraphQL error, such as `TIMEOUT`. */
export function codeOf(error: CombinedError | undefined): string | undefined {
    const code = error?.graphQLErrors[0]?.extensions?.code;
    return typeof code === "string" ? code : undefined;
}
