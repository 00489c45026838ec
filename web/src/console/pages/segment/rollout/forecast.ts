import type { Client } from "@urql/core";

import { describeError } from "../../../components/errors";
import { CancelRolloutDocument, SetRolloutDocument } from "../../../graphql/operations";
import { toContinuation } from "./plan-form";
import {
  type ChangeCounts,
  isExpired,
  isFailedWithdrawal,
  type Rollout,
  type RolloutAction,
} from "./rollout-state";

export interface Forecast {
  /** Null if the server rejects the action. */
  counts: ChangeCounts | null;
  failures: string[];
  /** Whether the counts include stages that have not started. */
  isStaged: boolean;
}

const NO_CHANGE: Forecast = {
  counts: { joining: 0, leaving: 0 },
  failures: [],
  isStaged: false,
};

/** Ask the server how many users join and leave because of an action. */
export async function forecastAction(
  client: Client,
  action: RolloutAction,
  slug: string,
  rollout: Rollout,
): Promise<Forecast> {
  if (action === "pause") {
    return NO_CHANGE;
  }
  const withdraw = action === "withdraw" || (action === "resume" && isFailedWithdrawal(rollout));
  if (action === "cancel" || withdraw) {
    const input = { slug, withdraw, dryRun: true };
    const { data, error } = await client.mutation(CancelRolloutDocument, { input });
    return toForecast(data?.cancelRollout, error && describeError(error), false);
  }
  if (isExpired(rollout, Date.now())) {
    return NO_CHANGE;
  }
  // `resumeRollout` has no counts, but a plan with the remaining stages has the same effect.
  const plan = toContinuation(rollout);
  const input = { slug, rollout: plan, dryRun: true };
  const { data, error } = await client.mutation(SetRolloutDocument, { input });
  const isStaged = rollout.stages.some(({ status }) => status === "PENDING");
  return toForecast(data?.setRollout, error && describeError(error), isStaged);
}

function toForecast(
  payload: (ChangeCounts & { errors: { message: string }[] }) | null | undefined,
  failure: string | undefined,
  isStaged: boolean,
): Forecast {
  if (failure !== undefined || !payload) {
    return { counts: null, failures: [failure ?? "The server sent no result."], isStaged };
  }
  const failures = payload.errors.map(({ message }) => message);
  return { counts: failures.length === 0 ? payload : null, failures, isStaged };
}
