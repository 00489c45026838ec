// Follows the flags of user 1 with OpenFeature's SDK for browsers, as a page does, and prints a line
// of JSON for each event and for each response. Usage: node openfeature-web.mjs URL TOKEN
//
// After each event PROVIDER_STALE, another provider starts with the stored values, as a page does
// that is loaded again.
import { OFREPWebProvider } from '@openfeature/ofrep-web-provider';
import { OpenFeature, ProviderEvents } from '@openfeature/web-sdk';

const [baseUrl, token] = process.argv.slice(2);
const context = { targetingKey: '1' };
const flags = ['A', 'B', 'C', 'NOPE'];
const stored = new Map();
globalThis.localStorage = {
  getItem: (key) => stored.get(key) ?? null,
  setItem: (key, value) => stored.set(key, value),
  removeItem: (key) => stored.delete(key),
};
const print = (line) => console.log(JSON.stringify(line));
const options = {
  baseUrl,
  headers: [['Authorization', `Bearer ${token}`]],
  timeoutMs: 3000,
  fetchImplementation: async (...request) => {
    const response = await fetch(...request);
    print({ event: 'response', status: response.status });
    return response;
  },
};

const client = OpenFeature.getClient();
const report = (event, message) => {
  const details = flags.map((flag) => {
    const { value, reason, errorCode } = client.getBooleanDetails(flag, false);
    return [flag, [value, errorCode ?? reason]];
  });
  print({ event, message, flags: Object.fromEntries(details) });
};

const loadAgain = async () => {
  const provider = new OFREPWebProvider({ ...options, cacheMode: 'network-first' });
  try {
    await provider.initialize(context, '');
    const { value, reason } = provider.resolveBooleanEvaluation('A', false);
    print({ event: 'loaded again', value, reason });
  } catch (error) {
    print({ event: 'loaded again', error: `${error}` });
  }
  await provider.onClose();
};

await OpenFeature.setContext(context);
await OpenFeature.setProviderAndWait(new OFREPWebProvider({ ...options, pollInterval: 200 }));
client.addHandler(ProviderEvents.Ready, () => report('ready'));
client.addHandler(ProviderEvents.ConfigurationChanged, () => report('changed'));
client.addHandler(ProviderEvents.Stale, ({ message }) => {
  report('stale', message);
  loadAgain();
});
