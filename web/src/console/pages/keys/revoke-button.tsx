import { Button, Stack, Text } from "@mantine/core";
import { modals } from "@mantine/modals";
import { notifications } from "@mantine/notifications";
import { useMutation } from "urql";

import { useSubmission } from "../../components/use-submission";
import { RevokeApiKeyDocument } from "../../graphql/operations";

interface Props {
    id: string;
    name: string;
    /** Whether the person uses this key now. */
    isOwn: boolean;
}

export function RevokeButton({ id, name, isOwn }: Props) {
    const [, revokeApiKey] = useMutation(RevokeApiKeyDocument);
    const { submit, submitting } = useSubmission(null);

    const revoke = async () => {
        const payload = await submit(revokeApiKey({ input: { id } }), (data) => data.revokeApiKey);
        notifications.show(
            payload
                ? { message: `The API key ${name} is revoked.` }
                : { color: "red", message: `The API key ${name} was not revoked. Try again.` },
        );
    };

    const confirm = () =>
        modals.openConfirmModal({
            title: `Revoke the API key ${name}?`,
            children: (
                <Stack gap="xs">
                    <Text size="sm">
                        The server rejects the key within one second. A revoked key cannot be
                        restored.
                    </Text>
                    {isOwn && (
                        <Text size="sm" fw={700}>
                            You are signed in with this key. You will be signed out.
                        </Text>
                    )}
                </Stack>
            ),
            labels: { confirm: "Revoke the API key", cancel: "Cancel" },
            confirmProps: { color: "red" },
            onConfirm: revoke,
        });

    return (
        <Button
            size="xs"
            variant="default"
            loading={submitting}
            onClick={confirm}
            aria-label={`Revoke ${name}`}
        >
            Revoke
        </Button>
    );
}
