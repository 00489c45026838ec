import { PostGraphileAmberPreset } from "postgraphile/presets/amber";
import { makePgService } from "postgraphile/adaptors/pg";

// Without it, the names of an enum and a table such as `rollout_event` and `rollout_events` conflict.
const EnumNamesPlugin = {
  name: "EnumNamesPlugin",
  version: "1.0.0",
  inflection: {
    replace: {
      enumType(previous, _options, codec) {
        return `${previous(codec)}Enum`;
      },
    },
  },
};

export default {
  extends: [PostGraphileAmberPreset],
  plugins: [EnumNamesPlugin],
  pgServices: [
    makePgService({
      connectionString: process.env.BENCH_DATABASE_URL,
      schemas: ["public", "peer"],
    }),
  ],
};
