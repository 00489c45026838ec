// Apollo Client with its default normalised cache.
import { readFileSync } from 'node:fs';
import { ApolloClient, CombinedGraphQLErrors, HttpLink, InMemoryCache, gql } from '@apollo/client';
import { runStory } from './story.mjs';

const [url, token, year, month] = process.argv.slice(2);
const { definitions } = gql(readFileSync(new URL('story.graphql', import.meta.url), 'utf8'));
const operations = Object.fromEntries(
  definitions.map((definition) => [
    definition.name.value,
    { kind: 'Document', definitions: [definition] },
  ]),
);
const client = new ApolloClient({
  link: new HttpLink({ uri: url, headers: { authorization: `Bearer ${token}` } }),
  cache: new InMemoryCache(),
});

async function execute(name, variables) {
  const document = operations[name];
  try {
    const { data, error } = name.endsWith('Mutation')
      ? await client.mutate({ mutation: document, variables })
      : await client.query({ query: document, variables, fetchPolicy: 'network-only' });
    if (error) throw error;
    return { data };
  } catch (error) {
    if (CombinedGraphQLErrors.is(error)) return { errors: error.errors };
    throw error;
  }
}

const results = await runStory(execute, { year: Number(year), month: Number(month) });
// Every object has its own id, so that the cache stores each separately.
results.cached = Object.keys(client.cache.extract()).filter((key) => /^(User|Segment):/.test(key));
console.log(JSON.stringify(results));
