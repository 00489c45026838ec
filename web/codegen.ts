import type { CodegenConfig } from "@graphql-codegen/cli";

// The types of the operations in `src/console/**/*.graphql`. Git ignores the result.
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
    },
};

export default config;
