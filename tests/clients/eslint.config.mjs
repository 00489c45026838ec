// The recommended rules of graphql-eslint and those of Relay for schema.graphql, with a reason for
// each exception.
import plugin from '@graphql-eslint/eslint-plugin';

export default [
  {
    files: ['**/*.graphql'],
    languageOptions: { parser: plugin.parser },
    plugins: { '@graphql-eslint': plugin },
    rules: {
      ...plugin.configs['flat/schema-recommended'].rules,
      ...plugin.configs['flat/schema-relay'].rules,
      '@graphql-eslint/require-description': [
        'error',
        {
          types: true,
          DirectiveDefinition: true,
          rootField: true,
          // GraphQL specifies @oneOf. Strawberry prints it for tools that do not know it.
          ignoredSelectors: ['DirectiveDefinition[name.value=oneOf]'],
        },
      ],
      '@graphql-eslint/strict-id-in-types': [
        'error',
        {
          exceptions: {
            // Types that are parts of an object: clients need no separate cache entries. A stage exists
            // only with its rollout; the viewer is the key, whose id is `keyId`. An event of the change
            // feed has a cursor.
            suffixes: ['Connection', 'Edge', 'Payload'],
            types: [
              ...['PageInfo', 'RolloutStage', 'Viewer', 'InvalidInput', 'SegmentNotFound'],
              ...['SegmentAlreadyExists', 'UserNotFound', 'UserAlreadyExists', 'VersionConflict'],
              ...['RolloutNotFound', 'RolloutStateConflict', 'ImportNotFound', 'ImportStateConflict'],
              ...['ChangeBatch', 'MembershipEvent', 'Explanation', 'ExplanationStep'],
              ...['IdempotencyKeyReused', 'RolloutPosition', 'MemberCountPoint', 'OutcomeCount', 'Rejection'],
              ...['Upload', 'Header'],
            ],
          },
        },
      ],
      '@graphql-eslint/relay-edge-types': [
        'error',
        {
          withEdgeSuffix: true,
          // There is no `node(id:)`: callers query objects by what they know (a number,
          // a slug), and Relay works without `Node`.
          shouldImplementNode: false,
          // `nodes` beside `edges` saves a level, and lists of a bounded length are plain lists.
          listTypeCanWrapOnlyEdgeType: false,
        },
      ],
      // Pages go forward only: the keyset has one order, which is documented at each list.
      '@graphql-eslint/relay-arguments': ['error', { includeBoth: false }],
    },
  },
];
