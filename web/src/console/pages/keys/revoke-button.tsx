import { Button, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { notifications } from "@mantine/notifications";
import { useMutation } from "urql";

import { useSession } from "../../app/session";
import { ConfirmDialog } from "../../components/confirm-dialog";
import { useSubmission } from "../../components/use-submission";
import { RevokeApiKeyDocument } from "../../graphql/operations";

interface Props {
  id: string;
  name: string;
  /** Whether the person uses this key now. */
  isOwn: boolean;
}

export function RevokeButton({ id, name, isOwn }: Props) {
  const { signOut } = useSession();
  const [opened, { open, close }] = useDisclosure();
  const [, revokeApiKey] = useMutation(RevokeApiKeyDocument);
  const { failures, submit, submitting } = useSubmission(null);

  const revoke = async () => {
    if (
      await submit(
        () => revokeApiKey({ input: { id } }),
        (data) => data.revokeApiKey,
      )
    ) {
      notifications.show({ message: `The API key ${name} is revoked.` });
      close();
      if (isOwn) {
        signOut();
      }
    }
  };

  return (
    <>
      <Button size="xs" variant="default" onClick={open} aria-label={`Revoke ${name}`}>
        Revoke
      </Button>
      <ConfirmDialog
        opened={opened}
        title={`Revoke the API key ${name}?`}
        confirmLabel="Revoke the API key"
        submitting={submitting}
        errors={failures}
        onConfirm={() => void revoke()}
        onClose={close}
      >
        <Text size="sm">
          The server rejects the key within one second. A revoked key cannot be restored.
        </Text>
        {isOwn && (
          <Text size="sm" fw={700}>
            You are signed in with this key. You will be signed out.
          </Text>
        )}
      </ConfirmDialog>
    </>
  );
}
