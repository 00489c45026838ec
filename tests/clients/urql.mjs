// urql with its default document cache.
import { readFileSync } from 'node:fs';
import { Client, cacheExchange, fetchExchange } from '@urql/core';
import { parse, print } from 'graphql';
import { runStory } from './story.mjs';

const [url, token, year, month] = process.argv.slice(2);
const { definitions } = parse(readFileSync(new URL('story.graphql', import.meta.url), 'utf8'));
const operations = Object.fromEntries(
  definitions.map((definition) => [definition.name.value, print(definition)]),
);
const client = new Client({
  url,
  exchanges: [cacheExchange, fetchExchange],
  requestPolicy: 'network-only',
  fetchOptions: { headers: { authorization: `Bearer ${token}` } },
});

async function execute(name, variables) {
  const operate = name.endsWith('Mutation') ? 'mutation' : 'query';
  const { data, error } = await client[operate](operations[name], variables).toPromise();
  if (error?.networkError) throw error.networkError;
  return { data, errors: error?.graphQLErrors };
}

console.log(JSON.stringify(await runStory(execute, { year: Number(year), month: Number(month) })));
