import { Group, Loader, Text } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useEffect, useRef, useState } from "react";
import { useClient } from "urql";

import { Confirmation } from "../../../components/confirm-dialog";
import { useSubmission } from "../../../components/use-submission";
import {
  CancelRolloutDocument,
  PauseRolloutDocument,
  ResumeRolloutDocument,
} from "../../../graphql/operations";
import { ACTION_TEXTS } from "./action-texts";
import { type Forecast, forecastAction } from "./forecast";
import {
  acceptsNewUsers,
  describeChanges,
  type Rollout,
  type RolloutAction,
} from "./rollout-state";

interface Props {
  action: RolloutAction;
  slug: string;
  rollout: Rollout;
  onDone: () => void;
}

/** What an action does, with the numbers of users from a dry run, and the button that does it. */
export function ConfirmAction({ action, slug, rollout, onDone }: Props) {
  const client = useClient();
  const [forecast, setForecast] = useState<Forecast>();
  const { failures, submitting, submit } = useSubmission(null);
  const texts = ACTION_TEXTS[action];

  useEffect(() => {
    let isClosed = false;
    void forecastAction(client, action, slug, rollout).then((result) => {
      if (!isClosed) {
        setForecast(result);
      }
    });
    return () => {
      isClosed = true;
    };
  }, [client, action, slug, rollout]);

  const isDone = useRef(false);
  const confirm = async () => {
    // The second click of a double click may arrive while the dialog disappears.
    if (!isDone.current && (await run())) {
      isDone.current = true;
      notifications.show({ color: "teal", message: texts.done });
      onDone();
    }
  };

  const run = () => {
    switch (action) {
      case "pause":
        return submit(
          () => client.mutation(PauseRolloutDocument, { input: { slug } }).toPromise(),
          (data) => data.pauseRollout,
        );
      case "resume":
        return submit(
          () => client.mutation(ResumeRolloutDocument, { input: { slug } }).toPromise(),
          (data) => data.resumeRollout,
        );
      default:
        return submit(
          () =>
            client
              .mutation(CancelRolloutDocument, {
                input: { slug, withdraw: action === "withdraw" },
              })
              .toPromise(),
          (data) => data.cancelRollout,
        );
    }
  };

  return (
    <Confirmation
      confirmLabel={texts.confirm}
      cancelLabel={texts.isDestructive ? "Keep the rollout" : undefined}
      isDestructive={texts.isDestructive}
      submitting={submitting}
      errors={[...(forecast?.failures ?? []), ...failures]}
      onConfirm={() => void confirm()}
      onClose={onDone}
    >
      <Text>{texts.effect}</Text>
      <Group gap="xs" aria-live="polite" mih="1.6em">
        {forecast ? (
          forecast.counts && (
            <Text fw={600}>
              {action === "pause" && acceptsNewUsers(rollout, Date.now())
                ? "No member leaves. New users still join, at the percentage of the current stage."
                : describeChanges(forecast.counts, forecast.isStaged)}
            </Text>
          )
        ) : (
          <>
            <Loader size="xs" aria-hidden />
            <Text c="dimmed">Counting the users who join and leave</Text>
          </>
        )}
      </Group>
    </Confirmation>
  );
}
