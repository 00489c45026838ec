// Composes the subgraph of the service with one of orders, and runs a query that joins both by a
// gateway of Apollo.
//
// Usage: node federation.mjs URL TOKEN
import { composeServices } from "@apollo/composition";
import { ApolloGateway, LocalGraphQLDataSource, RemoteGraphQLDataSource } from "@apollo/gateway";
import { ApolloServer } from "@apollo/server";
import { buildSubgraphSchema } from "@apollo/subgraph";
import { parse } from "graphql";

const [url, token] = process.argv.slice(2);
const authorization = `Bearer ${token}`;

const orders = parse(`
  extend schema @link(url: "https://specs.apollo.dev/federation/v2.3", import: ["@key", "@shareable"])
  type Query { orders: [Order!]! }
  type Order { number: Int! buyer: User audience: Segment }
  type User @key(fields: "id") { id: ID! orders: [Order!]! }
  type Segment @key(fields: "slug") { slug: String! campaign: String! }
  type PageInfo @shareable {
    hasNextPage: Boolean! hasPreviousPage: Boolean! startCursor: String endCursor: String
  }
`);
const stored = [
  { number: 1, buyer: { id: "1" }, audience: { slug: "A" } },
  { number: 2, buyer: { id: "2" }, audience: { slug: "GONE" } },
  { number: 3, buyer: { id: "99" }, audience: null },
];
const resolvers = {
  Query: { orders: () => stored },
  User: { orders: ({ id }) => stored.filter((order) => order.buyer.id === id) },
  Segment: { campaign: ({ slug }) => `campaign of ${slug}` },
};

async function readSdl() {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", authorization },
    body: JSON.stringify({ query: "{ _service { sdl } }" }),
  });
  return (await response.json()).data._service.sdl;
}

const composed = composeServices([
  { name: "segmentql", url, typeDefs: parse(await readSdl()) },
  { name: "orders", typeDefs: orders },
]);
if (composed.errors) {
  throw new Error(composed.errors.map(({ message }) => message).join("\n"));
}

// The requests to the service are counted: one for all users, and one for all segments.
let requests = 0;
const gateway = new ApolloGateway({
  supergraphSdl: composed.supergraphSdl,
  buildService: ({ name }) =>
    name === "orders"
      ? new LocalGraphQLDataSource(buildSubgraphSchema({ typeDefs: orders, resolvers }))
      : new RemoteGraphQLDataSource({
          url,
          willSendRequest: ({ request }) => {
            requests += 1;
            request.http.headers.set("authorization", authorization);
          },
        }),
});
const server = new ApolloServer({ gateway });
await server.start();

async function execute(query) {
  requests = 0;
  const { body } = await server.executeOperation({ query });
  const { data, errors } = body.singleResult;
  return { data, codes: (errors ?? []).map(({ extensions }) => extensions.code), requests };
}

const results = {
  hints: composed.hints.map(({ message }) => message),
  fromOrders: await execute(`{ orders { number
    buyer { id isIn(slug: "A") segments { slug campaign } } audience { slug version campaign } } }`),
  fromUsers: await execute(`{ user(id: 1) { id orders { number audience { campaign } } } }`),
  fromPages: await execute(`{ segments(first: 1) { nodes { slug campaign } pageInfo { hasNextPage } } }`),
};
await server.stop();
console.log(JSON.stringify(results));
