// Lints the schema in a file and prints [{rule, line, message}] as JSON.
import { readFileSync } from 'node:fs';
import { ESLint } from 'eslint';

const [file] = process.argv.slice(2);
const eslint = new ESLint({
  cwd: import.meta.dirname,
  overrideConfigFile: 'eslint.config.mjs',
  overrideConfig: [
    {
      files: ['**/*.graphql'],
      languageOptions: { parserOptions: { graphQLConfig: { schema: file } } },
    },
  ],
});
const [result] = await eslint.lintText(readFileSync(file, 'utf8'), { filePath: 'schema.graphql' });
console.log(
  JSON.stringify(result.messages.map(({ ruleId, line, message }) => ({ rule: ruleId, line, message }))),
);
