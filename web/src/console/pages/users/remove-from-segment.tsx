import { Button, Group, Modal, Stack, Text } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useMutation } from "urql";

import { EXCLUSION } from "../../components/exclusion";
import { FormErrors } from "../../components/form-errors";
import { useSubmission } from "../../components/use-submission";
import { UpdateUserSegmentsDocument } from "../../graphql/operations";

interface Props {
    userId: string;
    /** The segment to leave. The dialog is closed if there is none. */
    slug: string | undefined;
    onClose: () => void;
}

export function RemoveFromSegment({ userId, slug, onClose }: Props) {
    return (
        <Modal
            opened={slug !== undefined}
            onClose={onClose}
            title="Remove the user from the segment?"
        >
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
            <Text>{EXCLUSION}</Text>
            <FormErrors messages={failures} />
            <Group justify="flex-end">
                <Button variant="default" onClick={onClose} data-autofocus>
                    Cancel
                </Button>
                <Button color="red" loading={submitting} onClick={remove}>
                    Remove the user
                </Button>
            </Group>
        </Stack>
    );
}
