import { Button, Group, Loader, Stack, Text } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useEffect, useState } from "react";
import { useClient } from "urql";

import { Failures, useSubmission } from "../../../components/forms";
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

    const confirm = async () => {
        if (await run()) {
            notifications.show({ color: "teal", message: texts.done });
            onDone();
        }
    };

    const run = () => {
        switch (action) {
            case "pause":
                return submit(
                    client.mutation(PauseRolloutDocument, { input: { slug } }).toPromise(),
                    (data) => data.pauseRollout,
                );
            case "resume":
                return submit(
                    client.mutation(ResumeRolloutDocument, { input: { slug } }).toPromise(),
                    (data) => data.resumeRollout,
                );
            default:
                return submit(
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
        <Stack>
            <Text>{texts.effect}</Text>
            <Group gap="xs" aria-live="polite" mih="1.6em">
                {forecast ? (
                    forecast.counts && (
                        <Text fw={600}>
                            {action === "pause" && acceptsNewUsers(rollout, Date.now())
                                ? "No user leaves. Only new users join, at the percent in force."
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
            <Failures messages={[...(forecast?.failures ?? []), ...failures]} />
            <Group justify="flex-end">
                <Button variant="default" data-autofocus onClick={onDone}>
                    Back
                </Button>
                <Button
                    color={texts.isDestructive ? "red" : undefined}
                    loading={submitting}
                    onClick={confirm}
                >
                    {texts.confirm}
                </Button>
            </Group>
        </Stack>
    );
}
