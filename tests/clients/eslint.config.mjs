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
    },
  },
];
