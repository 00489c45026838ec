// Follows the change feed with one client, and prints each change as a line of JSON. Usage:
// node changes.mjs CLIENT HTTP_URL TOKEN
//
// The clients subscribe again with the original variables after a lost connection, which would
// repeat changes. So their own retries are off, and `follow` restarts the operation with the last
// cursor.
import { readFileSync } from 'node:fs';
import { ApolloClient, InMemoryCache, gql } from '@apollo/client';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions';
import { Client, fetchExchange } from '@urql/core';
import { createClient as createSseClient } from 'graphql-sse';
import { createClient as createWsClient } from 'graphql-ws';
import WebSocket from 'ws';

const [name, url, token] = process.argv.slice(2);
const query = readFileSync(new URL('changes.graphql', import.meta.url), 'utf8');
globalThis.WebSocket ??= WebSocket; // Apollo Client needs it, and Node 20 does not have it
const authorization = `Bearer ${token}`;

const wsClient = () =>
  createWsClient({
    url: url.replace('http', 'ws'),
    webSocketImpl: WebSocket,
    connectionParams: { authorization },
    retryAttempts: 0,
  });

// Each client is a function that returns an async iterable of {data, errors}.
const clients = {
  'graphql-ws': () => {
    const client = wsClient();
    return (variables) => client.iterate({ query, variables });
  },
  'graphql-sse': () => {
    const client = createSseClient({ url, headers: { authorization }, retryAttempts: 0 });
    return (variables) => client.iterate({ query, variables });
  },
  apollo: () => {
    const client = new ApolloClient({
      link: new GraphQLWsLink(wsClient()),
      cache: new InMemoryCache(),
    });
    const subscription = gql(query);
    return (variables) => {
      const observable = client.subscribe({
        query: subscription,
        variables,
        fetchPolicy: 'no-cache',
      });
      // Apollo Client delivers a lost connection as a result with `error`.
      const next = (sink) => ({ data, error }) =>
        error && !error.errors ? sink.error(error) : sink.next({ data, errors: error?.errors });
      return iterate((sink) => observable.subscribe({ ...sink, next: next(sink) }));
    };
  },
  urql: () => {
    const client = new Client({
      url,
      exchanges: [fetchExchange],
      fetchSubscriptions: true,
      fetchOptions: { headers: { authorization } },
    });
    return (variables) =>
      iterate((sink) => {
        const next = (result) => {
          if (result.error?.networkError) sink.error(result.error.networkError);
          // At the end of an event stream, urql repeats the last result without `hasNext`.
          else if (!result.hasNext) sink.complete();
          else sink.next({ data: result.data, errors: result.error?.graphQLErrors });
        };
        return client.subscription(query, variables).subscribe(next);
      });
  },
};

// Yields what a subscription with callbacks delivers.
async function* iterate(subscribe) {
  const queue = [];
  let wake = () => {};
  const push = (item) => {
    queue.push(item);
    wake();
  };
  const subscription = subscribe({
    next: (value) => push({ value }),
    error: (error) => push({ error }),
    complete: () => push({ done: true }),
  });
  try {
    for (;;) {
      while (queue.length === 0) await new Promise((resolve) => (wake = resolve));
      const { value, error, done } = queue.shift();
      if (error) throw error;
      if (done) return;
      yield value;
    }
  } finally {
    subscription.unsubscribe();
  }
}

const isFatal = (error) =>
  ['CURSOR_EXPIRED', 'FEED_RESET', 'BAD_REQUEST', 'FORBIDDEN'].includes(error?.extensions?.code);

async function* follow(subscribe, after) {
  for (;;) {
    try {
      for await (const { data, errors } of subscribe({ after })) {
        if (errors?.length) throw errors[0];
        yield data.changes.events;
        after = data.changes.cursor; // store it together with the effects of the events
      }
    } catch (error) {
      if (isFatal(error)) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

for await (const events of follow(clients[name](), null)) {
  console.log(JSON.stringify(events.map(({ entry }) => [entry.userId, entry.operation])));
}
