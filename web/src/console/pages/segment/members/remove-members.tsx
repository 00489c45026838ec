import { Button, Group, Modal, Stack, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { notifications } from "@mantine/notifications";
import { UserMinus } from "lucide-react";
import { useMutation } from "urql";

import { Failures, useSubmission } from "../../../components/forms";
import { formatNumber } from "../../../format";
import { UpdateSegmentMembersDocument } from "../../../graphql/operations";
import { describeOutcome } from "./outcomes";

interface Props {
    slug: string;
    /** The ids of the selected users. */
    users: readonly string[];
    onRemoved: () => void;
}

/** The button that removes the selected members, with its confirmation. */
export function RemoveMembers({ slug, users, onRemoved }: Props) {
    const [opened, { open, close }] = useDisclosure();
    const [, updateMembers] = useMutation(UpdateSegmentMembersDocument);
    const { failures, submitting, submit } = useSubmission(null);

    const remove = async () => {
        const payload = await submit(
            updateMembers({ input: { slug, remove: [...users] } }),
            (data) => data.updateSegmentMembers,
        );
        if (payload) {
            notifications.show({ message: payload.counts.map(describeOutcome).join(" ") });
            close();
            onRemoved();
        }
    };

    return (
        <>
            <Group gap="sm">
                <Button
                    size="xs"
                    variant="light"
                    color="red"
                    leftSection={<UserMinus size={16} aria-hidden />}
                    disabled={users.length === 0}
                    onClick={open}
                >
                    Remove
                </Button>
                <Text size="sm" c="dimmed" role="status">
                    {users.length === 0
                        ? "Select members to remove them."
                        : `${users.length} selected`}
                </Text>
            </Group>
            <Modal opened={opened} onClose={close} title="Remove members">
                <Stack>
                    <Text>
                        {users.length === 1
                            ? `User ${users[0]} leaves the segment.`
                            : `${formatNumber(users.length)} users leave the segment.`}{" "}
                        Rollouts of this segment exclude {users.length === 1 ? "the user" : "them"}{" "}
                        until {users.length === 1 ? "the user is" : "they are"} added by hand again.
                    </Text>
                    <Failures messages={failures} />
                    <Group justify="flex-end">
                        <Button variant="default" onClick={close} data-autofocus>
                            Cancel
                        </Button>
                        <Button color="red" loading={submitting} onClick={() => void remove()}>
                            Remove
                        </Button>
                    </Group>
                </Stack>
            </Modal>
        </>
    );
}
