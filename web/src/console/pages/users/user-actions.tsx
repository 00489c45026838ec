import { Button, Group, Modal, Stack, TextInput } from "@mantine/core";
import { useForm } from "@mantine/form";
import { notifications } from "@mantine/notifications";
import { KeyRound, Trash2, UserPlus } from "lucide-react";
import { useState } from "react";
import { useMutation } from "urql";

import { useSession } from "../../app/session";
import { FormErrors } from "../../components/form-errors";
import { useSubmission } from "../../components/use-submission";
import { SetUserKeyDocument, type UserHeadQuery } from "../../graphql/operations";
import { CreateUser } from "./create-user";
import { DeleteUser } from "./delete-user";

interface Props {
  id: string;
  user: UserHeadQuery["user"];
}

/** The buttons beside the title: what the role and the state of the user allow. */
export function UserActions({ id, user }: Props) {
  const { hasRole } = useSession();
  const [dialog, setDialog] = useState<"key" | "create" | "delete">();
  const close = () => setDialog(undefined);
  return (
    <>
      {hasRole("EDITOR") && user && user.key === null && (
        <Button
          variant="default"
          leftSection={<KeyRound size={16} aria-hidden />}
          onClick={() => setDialog("key")}
        >
          Set the key
        </Button>
      )}
      {hasRole("EDITOR") && !user && (
        <Button
          leftSection={<UserPlus size={16} aria-hidden />}
          onClick={() => setDialog("create")}
        >
          Create this user
        </Button>
      )}
      {hasRole("ADMIN") && (
        <Button
          variant="default"
          leftSection={<Trash2 size={16} aria-hidden />}
          onClick={() => setDialog("delete")}
        >
          {user ? "Delete" : "Erase the keys"}
        </Button>
      )}
      <Modal opened={dialog === "key"} onClose={close} title={`Set the key of user ${id}`}>
        <SetKeyForm id={id} onClose={close} />
      </Modal>
      <CreateUser opened={dialog === "create"} onClose={close} id={id} />
      <DeleteUser id={id} user={user} opened={dialog === "delete"} onClose={close} />
    </>
  );
}

function SetKeyForm({ id, onClose }: { id: string; onClose: () => void }) {
  const form = useForm({ mode: "controlled", initialValues: { key: "" } });
  const { failures, submitting, submit } = useSubmission(form);
  const [, setKey] = useMutation(SetUserKeyDocument);

  const set = form.onSubmit(async ({ key }) => {
    const payload = await submit(
      () => setKey({ input: { id, key } }),
      (data) => data.updateUser,
    );
    if (payload) {
      notifications.show({ color: "teal", message: `The key of user ${id} is set.` });
      onClose();
    }
  });

  return (
    <form onSubmit={set} noValidate>
      <Stack>
        <TextInput
          label="Key"
          description="The key is set once. It cannot be changed later."
          autoComplete="off"
          data-autofocus
          {...form.getInputProps("key")}
        />
        <FormErrors messages={failures} />
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            Cancel
          </Button>
          <Button type="submit" loading={submitting}>
            Set the key
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
