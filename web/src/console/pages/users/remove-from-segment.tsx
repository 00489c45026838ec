import { Button, Group, Modal, Stack, Text } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useMutation } from "urql";

import { Failures, useSubmission } from "../../components/forms";
import { UpdateUserSegmentsDocument } from "../../graphql/operations";

interface Props {
    userId: string;
    /** The segment to leave. The dialog is closed if there is none. */
    slug: string | undefined;
    onClose: () => void;
}

export function RemoveFromSegment({ userId, slug, onClose }: Props) {
    return (
        <Modal opened={slug !== undefined} onClose={onClose} title="Remove the user from a segment">
            {slug !== undefined && <Confirmation userId={userId} slug={slug} onClose={onClose} />}
        </Modal>
    );
}

function Confirmation({ userId, slug, onClose }: Props & { slug: string }) {
    const { failures, submitting, submit } = useSubmission(null);
    const [, update] = useMutation(UpdateUserSegmentsDocument);

    const remove = async () => {
        const payload = await submit(
            update({ input: { userId, remove: [slug] } }),
            (data) => data.updateUserSegments,
        );
        if (payload) {
            notifications.show({
                color: "teal",
                message:
                    payload.segmentsRemoved > 0
                        ? `User ${userId} left ${slug}.`
                        : `User ${userId} was not in ${slug} any more.`,
            });
            onClose();
        }
    };

    return (
        <Stack>
            <Text className="break">
                User {userId} leaves <b>{slug}</b> now.
            </Text>
            <Text>
                The rollouts of this segment skip the user from then on, until the user is added by
                hand again.
            </Text>
            <Failures messages={failures} />
            <Group justify="flex-end">
                <Button variant="default" onClick={onClose} data-autofocus>
                    Cancel
                </Button>
                <Button color="red" loading={submitting} onClick={remove}>
                    Remove
                </Button>
            </Group>
        </Stack>
    );
}
