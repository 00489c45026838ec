import type { CodegenConfig } from "@graphql-codegen/cli";

// The types of the operations in `src/console/**/*.graphql`, and the operations as stored documents.
// Git ignores the results.
const config: CodegenConfig = {
  schema: "../schema.graphql",
  documents: "src/console/**/*.graphql",
  generates: {
    "src/console/graphql/operations.ts": {
      plugins: ["typescript-operations", "typed-document-node"],
      config: {
        scalars: { BigInt: "number", DateTime: "string", ID: "string" },
        enumType: "string-literal",
        useTypeImports: true,
        dedupeFragments: true,
      },
    },
    "src/console/graphql/document-ids.ts": {
      plugins: [{ "./documents-plugin.js": { output: "ids" } }],
    },
    // The build copies it to the static files, from which the server reads it.
    "public/documents.json": {
      plugins: [{ "./documents-plugin.js": { output: "manifest" } }],
    },
  },
};

export default config;
