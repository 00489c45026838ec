import { Alert, Button, Group, Modal, Stack, Text, Textarea, TextInput } from "@mantine/core";
import { useForm } from "@mantine/form";
import { notifications } from "@mantine/notifications";
import { CircleAlert } from "lucide-react";
import { useState } from "react";
import { useMutation } from "urql";

import { FormErrors } from "../../../components/form-errors";
import { useSubmission } from "../../../components/use-submission";
import { UpdateSegmentDocument } from "../../../graphql/operations";

interface State {
  name?: string | null;
  description?: string | null;
  version: number;
}

interface Props {
  segment: State & { slug: string };
  opened: boolean;
  onClose: () => void;
}

/** The dialog that changes the name and the description. */
export function EditSegment({ segment, opened, onClose }: Props) {
  return (
    <Modal
      opened={opened}
      onClose={onClose}
      title="Edit segment"
      size="lg"
      closeOnClickOutside={false}
    >
      <EditForm segment={segment} onClose={onClose} />
    </Modal>
  );
}

function EditForm({ segment, onClose }: Pick<Props, "segment" | "onClose">) {
  const [, updateSegment] = useMutation(UpdateSegmentDocument);
  // The version that the person edits. A later one must not be overwritten unseen.
  const [version, setVersion] = useState(segment.version);
  const [conflict, setConflict] = useState<State | null>(null);
  const form = useForm({ mode: "uncontrolled", initialValues: toValues(segment) });
  const { failures, submitting, submit } = useSubmission(form);

  const onSubmit = form.onSubmit(async ({ name, description }) => {
    setConflict(null);
    const input = {
      slug: segment.slug,
      name: name.trim() || null,
      description: description.trim() || null,
      expectedVersion: version,
    };
    const payload = await submit(
      () => updateSegment({ input }),
      ({ updateSegment: result }) => {
        for (const error of result?.errors ?? []) {
          if (error.__typename === "VersionConflict") {
            setConflict(error.current);
          }
        }
        return result;
      },
    );
    if (payload) {
      notifications.show({ message: "The segment is updated." });
      onClose();
    }
  });

  const loadCurrent = (current: State) => {
    form.setValues(toValues(current));
    setVersion(current.version);
    setConflict(null);
  };

  const keepMine = (current: State) => {
    setVersion(current.version);
    setConflict(null);
  };

  return (
    <form onSubmit={onSubmit} noValidate>
      <Stack>
        <TextInput
          label="Name"
          description="The name for people."
          maxLength={255}
          data-autofocus
          key={form.key("name")}
          {...form.getInputProps("name")}
        />
        <Textarea
          label="Description"
          description="What the segment is for."
          maxLength={4096}
          autosize
          minRows={3}
          maxRows={12}
          key={form.key("description")}
          {...form.getInputProps("description")}
        />
        {conflict ? (
          <Alert
            color="yellow"
            role="alert"
            icon={<CircleAlert aria-hidden />}
            title="Another change was made"
          >
            <Stack gap="sm" align="flex-start">
              <Text size="sm">
                The segment has version {conflict.version} now, and you edit version {version}. Your
                values are not saved.
              </Text>
              <Text size="sm" className="break">
                The name is now “{conflict.name ?? ""}”, the description “
                {conflict.description ?? ""}”.
              </Text>
              <Group gap="xs">
                <Button size="xs" variant="default" onClick={() => loadCurrent(conflict)}>
                  Load the current values
                </Button>
                <Button size="xs" variant="default" onClick={() => keepMine(conflict)}>
                  Keep my values
                </Button>
              </Group>
            </Stack>
          </Alert>
        ) : (
          <FormErrors messages={failures} />
        )}
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            Cancel
          </Button>
          <Button type="submit" loading={submitting}>
            Save
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

function toValues({ name, description }: State) {
  return { name: name ?? "", description: description ?? "" };
}
