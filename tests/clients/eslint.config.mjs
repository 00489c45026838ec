// graphql-eslint's recommended rules and Relay's over schema.graphql; a reason for each that is
// not kept, or is kept otherwise.
import plugin from '@graphql-eslint/eslint-plugin';

export default [
  {
    files: ['**/*.graphql'],
    languageOptions: { parser: plugin.parser },
    plugins: { '@graphql-eslint': plugin },
    rules: {
      ...plugin.configs['flat/schema-recommended'].rules,
      ...plugin.configs['flat/schema-relay'].rules,
      '@graphql-eslint/strict-id-in-types': [
        'error',
        {
          exceptions: {
            // Parts of an answer, not things: clients need not keep them apart. A stage has no life
            // without its rollout; the viewer is the key, whose id is `keyId`.
            suffixes: ['Connection', 'Edge', 'Payload'],
            types: [
              ...['PageInfo', 'RolloutStage', 'Viewer', 'InvalidInput', 'SegmentNotFound'],
              ...['SegmentAlreadyExists', 'UserNotFound', 'UserAlreadyExists', 'VersionConflict'],
              ...['RolloutNotFound', 'RolloutStateConflict'],
            ],
          },
        },
      ],
      '@graphql-eslint/relay-edge-types': [
        'error',
        {
          withEdgeSuffix: true,
          // There is no `node(id:)`: each thing is asked for by what callers know it by (a number,
          // a slug), and Relay does without `Node`.
          shouldImplementNode: false,
          // `nodes` beside `edges` saves a level, and lists that cannot grow are plain lists.
          listTypeCanWrapOnlyEdgeType: false,
        },
      ],
      // Pages go forward alone: the keyset has one order, which is documented at each list.
      '@graphql-eslint/relay-arguments': ['error', { includeBoth: false }],
    },
  },
];
