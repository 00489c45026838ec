// Runs the operations in Relay with the output of its compiler for schema.graphql. The first
// argument is the folder of that output.
import { pathToFileURL } from 'node:url';
import runtime from 'relay-runtime';
import { runStory } from './story.mjs';

const { Environment, Network, RecordSource, Store, commitMutation, fetchQuery } = runtime;
const [made, url, token, year, month] = process.argv.slice(2);

async function send(parameters, variables) {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
    body: JSON.stringify({ query: parameters.text, variables }),
  });
  last = await response.json();
  return last;
}

let last;
const environment = new Environment({
  network: Network.create(send),
  store: new Store(new RecordSource()),
});

async function execute(name, variables) {
  const { default: operation } = await import(pathToFileURL(`${made}/${name}.graphql.js`));
  try {
    const data = name.endsWith('Mutation')
      ? await new Promise((resolve, reject) => {
          commitMutation(environment, {
            mutation: operation,
            variables,
            onCompleted: resolve,
            onError: reject,
          });
        })
      : await fetchQuery(environment, operation, variables, {
          fetchPolicy: 'network-only',
        }).toPromise();
    return { data, errors: last.errors };
  } catch (error) {
    if (last?.errors) return { errors: last.errors };
    throw error;
  }
}

const results = await runStory(execute, { year: Number(year), month: Number(month) });
// Relay requests the pages of this connection itself; the fragment only names the connection.
const { default: pages } = await import(pathToFileURL(`${made}/storyPagesQuery.graphql.js`));
await fetchQuery(environment, pages, { first: 1 }).toPromise();
const connection = 'client:root:__story_segments_connection';
results.page = environment.getStore().getSource().get(connection)?.edges.__refs.length;
// It reads an object of a fragment again by its id.
const { default: refetch } = await import(pathToFileURL(`${made}/storySegmentRefetchQuery.graphql.js`));
const [edge] = environment.getStore().getSource().get(connection).edges.__refs;
const { __ref: id } = environment.getStore().getSource().get(edge).node;
await fetchQuery(environment, refetch, { id }).toPromise();
results.refetched = last.data.node;
console.log(JSON.stringify(results));
