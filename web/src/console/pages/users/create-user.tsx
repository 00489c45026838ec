import { Button, Group, Modal, Stack, TextInput } from "@mantine/core";
import { useForm } from "@mantine/form";
import { notifications } from "@mantine/notifications";
import { useMutation } from "urql";
import { useLocation } from "wouter";

import { FormErrors } from "../../components/form-errors";
import { useSubmission } from "../../components/use-submission";
import { CreateUserDocument } from "../../graphql/operations";

interface Props {
  opened: boolean;
  onClose: () => void;
  /** The id of the page, if its user does not exist. */
  id?: string;
}

/** The dialog that creates a user and then shows the user's page. */
export function CreateUser({ opened, ...props }: Props) {
  return (
    <Modal opened={opened} onClose={props.onClose} title="Create user">
      <CreateUserForm {...props} />
    </Modal>
  );
}

function CreateUserForm({ onClose, id = "" }: Omit<Props, "opened">) {
  const form = useForm({ mode: "controlled", initialValues: { id, key: "" } });
  const { failures, submitting, submit } = useSubmission(form);
  const [, createUser] = useMutation(CreateUserDocument);
  const [, navigate] = useLocation();

  const create = form.onSubmit(async (values) => {
    const input = { id: values.id.trim() || null, key: values.key || null };
    const payload = await submit(
      () => createUser({ input }),
      (data) => data.createUser,
    );
    if (payload?.user) {
      notifications.show({ color: "teal", message: `User ${payload.user.id} is created.` });
      onClose();
      navigate(`/users/${payload.user.id}`);
    }
  });

  return (
    <form onSubmit={create} noValidate>
      <Stack>
        <TextInput
          label="Id"
          description="A positive number. If it is empty, the server chooses an id that no user ever had."
          inputMode="numeric"
          autoComplete="off"
          data-autofocus
          {...form.getInputProps("id")}
        />
        <TextInput
          label="Key"
          description="Your own name of the user, such as a UUID or an account name. Optional. It never changes."
          autoComplete="off"
          {...form.getInputProps("key")}
        />
        <FormErrors messages={failures} />
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            Cancel
          </Button>
          <Button type="submit" loading={submitting}>
            Create user
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
