// Evaluates flags with OpenFeature's SDK for servers. Usage:
// node openfeature-server.mjs evaluate URL TOKEN: prints the details of several flags as JSON
// node openfeature-server.mjs burst URL TOKEN COUNT: sends COUNT evaluations at once, then evaluates
//   until one succeeds, and prints the messages of all errors
import { OFREPProvider } from '@openfeature/ofrep-provider';
import { OpenFeature } from '@openfeature/server-sdk';

const [command, baseUrl, token, count] = process.argv.slice(2);
const quiet = { error() {}, warn() {}, info() {}, debug() {} };

const makeClient = async (domain, headers) => {
  await OpenFeature.setProviderAndWait(domain, new OFREPProvider({ baseUrl, headers }));
  return OpenFeature.getClient(domain).setLogger(quiet);
};
const details = async (client, key, context) => {
  const { value, reason, variant, errorCode, errorMessage, flagMetadata } =
    await client.getBooleanDetails(key, false, context);
  return { value, reason, variant, errorCode, errorMessage, flagMetadata };
};

const client = await makeClient('bearer', [['Authorization', `Bearer ${token}`]]);
const user = { targetingKey: '1', plan: 'free' };
if (command === 'evaluate') {
  const other = await makeClient('x-api-key', [['X-API-Key', token]]);
  const invalid = await makeClient('invalid', [['X-API-Key', 'nonsense']]);
  console.log(
    JSON.stringify({
      byHand: await details(client, 'A', user),
      byRollout: await details(other, 'B', user),
      expired: await details(client, 'C', user),
      unstored: await details(client, 'A', { targetingKey: '99' }),
      unknown: await details(client, 'NOPE', user),
      withoutUser: await details(client, 'A', {}),
      notAnId: await details(client, 'A', { targetingKey: 'ada' }),
      withoutKey: await details(invalid, 'A', user),
    }),
  );
} else {
  const burst = Array.from({ length: Number(count) }, () => details(client, 'A', user));
  const results = await Promise.all(burst);
  do {
    results.push(await details(client, 'A', user));
  } while (results.at(-1).errorCode);
  console.log(JSON.stringify(results.map(({ errorMessage }) => errorMessage ?? null)));
}
