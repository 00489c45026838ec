import {
  type Client,
  type CombinedError,
  cacheExchange,
  createClient as createUrqlClient,
  fetchExchange,
  makeOperation,
  mapExchange,
  stringifyDocument,
  type TypedDocumentNode,
} from "@urql/core";
import {
  createClient as createStreamClient,
  type ExecutionResult,
  type RequestParams,
} from "graphql-sse";

import { graphqlPath, readPublicSetting } from "../app/public-settings";
import { storedDocumentExchange, streamParameters } from "./stored-documents";

/** A type that the cache sees in every result, so that each mutation makes all of them stale. */
const EVERYTHING = ["Everything"];

/**
 * Return a client that sends an API key with each request.
 *
 * Queries show the cached result first and then the server's. After a mutation the queries that the
 * page shows are sent again: an empty list, too, in whose result the cache sees no type.
 */
export function createClient(apiKey: string | null, onRejectedKey: () => void): Client {
  const headers = headersOf(apiKey);
  return createUrqlClient({
    url: graphqlPath(),
    preferGetMethod: false,
    requestPolicy: "cache-and-network",
    fetchOptions: { headers },
    exchanges: [
      mapExchange({
        onOperation: (operation) =>
          makeOperation(operation.kind, operation, {
            ...operation.context,
            additionalTypenames: EVERYTHING,
          }),
        onError: (error) => {
          if (apiKey && codeOf(error) === "UNAUTHENTICATED") {
            onRejectedKey();
          }
        },
      }),
      cacheExchange,
      // After the cache, which reads the fields of the document.
      ...(requiresDocumentIds() ? [storedDocumentExchange] : []),
      fetchExchange,
    ],
  });
}

/**
 * Run a subscription and return its results.
 *
 * It ends if the connection ends. The caller subscribes again, because only it knows the last cursor.
 */
export function subscribe<Data, Variables extends Record<string, unknown>>(
  apiKey: string | null,
  document: TypedDocumentNode<Data, Variables>,
  variables: Variables,
): AsyncIterableIterator<ExecutionResult<Data, unknown>> {
  const client = createStreamClient({
    url: graphqlPath(),
    headers: headersOf(apiKey),
    retryAttempts: 0,
  });
  const parameters = requiresDocumentIds()
    ? streamParameters(document, variables)
    : { query: stringifyDocument(document), variables };
  // The type of the parameters does not know `documentId`. They are the body of the request.
  return client.iterate<Data>(parameters as RequestParams);
}

/** Return whether the server executes only stored documents. */
function requiresDocumentIds(): boolean {
  return readPublicSetting("documents") === "trusted";
}

function headersOf(apiKey: string | null): Record<string, string> {
  return apiKey ? { authorization: `Bearer ${apiKey}` } : {};
}

/** The `extensions.code` of the first GraphQL error, such as `TIMEOUT`. */
export function codeOf(error: CombinedError | undefined): string | undefined {
  const code = error?.graphQLErrors[0]?.extensions?.code;
  return typeof code === "string" ? code : undefined;
}
