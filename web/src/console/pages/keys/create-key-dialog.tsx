import {
  Alert,
  Button,
  Code,
  CopyButton,
  Group,
  Modal,
  Radio,
  Stack,
  Text,
  TextInput,
} from "@mantine/core";
import { useForm } from "@mantine/form";
import { Check, Copy, TriangleAlert } from "lucide-react";
import { useState } from "react";
import { useMutation } from "urql";

import { labelOf, ROLE_LABELS } from "../../components/enum-labels";
import { FormErrors } from "../../components/form-errors";
import { useSubmission } from "../../components/use-submission";
import { CreateApiKeyDocument, type Role } from "../../graphql/operations";

const ROLES: readonly { role: Role; description: string }[] = [
  { role: "EVALUATOR", description: "Evaluates segments through OpenFeature, and nothing else" },
  { role: "READER", description: "Reads data, and creates exports and reports on single users" },
  { role: "EDITOR", description: "Also creates and changes data, and reads the audit log" },
  { role: "ADMIN", description: "Also deletes data, and manages API keys" },
];

/** Create an API key, and show its token once. */
export function CreateKeyDialog({ onClose }: { onClose: () => void }) {
  const [token, setToken] = useState<string>();
  return (
    <Modal
      opened
      onClose={onClose}
      title={token ? "The API key is created" : "Create API key"}
      // A click beside the dialog must not lose the token.
      closeOnClickOutside={!token}
      closeOnEscape={!token}
      withCloseButton={!token}
      closeButtonProps={{ "aria-label": "Close" }}
    >
      {token ? <Token token={token} onClose={onClose} /> : <KeyForm onCreated={setToken} />}
    </Modal>
  );
}

function KeyForm({ onCreated }: { onCreated: (token: string) => void }) {
  const form = useForm<{ name: string; role: Role }>({
    initialValues: { name: "", role: "READER" },
  });
  const [, createApiKey] = useMutation(CreateApiKeyDocument);
  const { failures, submit, submitting } = useSubmission(form);

  const onSubmit = form.onSubmit(async (input) => {
    const payload = await submit(
      () => createApiKey({ input }),
      (data) => data.createApiKey,
    );
    if (payload?.token) {
      onCreated(payload.token);
    }
  });

  return (
    <form onSubmit={onSubmit} noValidate>
      <Stack>
        <TextInput
          label="Name"
          description="Of the service or the person that will use the key"
          data-autofocus
          required
          {...form.getInputProps("name")}
        />
        <Radio.Group label="Role" {...form.getInputProps("role")}>
          <Stack gap="xs" mt="xs">
            {ROLES.map(({ role, description }) => (
              <Radio
                key={role}
                value={role}
                label={labelOf(ROLE_LABELS, role)}
                description={description}
              />
            ))}
          </Stack>
        </Radio.Group>
        <FormErrors messages={failures} />
        <Group justify="flex-end">
          <Button type="submit" loading={submitting}>
            Create API key
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

function Token({ token, onClose }: { token: string; onClose: () => void }) {
  return (
    <Stack>
      <Alert color="orange" icon={<TriangleAlert aria-hidden />}>
        Copy the key now. It is not shown again.
      </Alert>
      <Code block className="wrap" aria-label="API key">
        {token}
      </Code>
      <Text size="sm" c="dimmed">
        Send it in the header <Code>Authorization: Bearer …</Code>
      </Text>
      <Group justify="flex-end">
        <CopyButton value={token}>
          {({ copied, copy }) => (
            <Button
              variant="default"
              onClick={copy}
              leftSection={
                copied ? <Check size={16} aria-hidden /> : <Copy size={16} aria-hidden />
              }
            >
              {copied ? "Copied" : "Copy"}
            </Button>
          )}
        </CopyButton>
        <Button onClick={onClose}>I have stored the key</Button>
      </Group>
    </Stack>
  );
}
