import { Button, Group, Modal, Stack, Textarea, TextInput } from "@mantine/core";
import { useForm } from "@mantine/form";
import { notifications } from "@mantine/notifications";
import { useMutation } from "urql";
import { useLocation } from "wouter";

import { FormErrors } from "../../components/form-errors";
import { segmentPath } from "../../components/links";
import { useSubmission } from "../../components/use-submission";
import { CreateSegmentDocument } from "../../graphql/operations";

interface Props {
  opened: boolean;
  onClose: () => void;
}

/** The dialog that creates a segment and then opens its page. */
export function CreateSegment({ opened, onClose }: Props) {
  return (
    <Modal
      opened={opened}
      onClose={onClose}
      title="Create segment"
      size="lg"
      closeOnClickOutside={false}
    >
      <CreateForm onClose={onClose} />
    </Modal>
  );
}

function CreateForm({ onClose }: Pick<Props, "onClose">) {
  const [, navigate] = useLocation();
  const [, createSegment] = useMutation(CreateSegmentDocument);
  const form = useForm({
    mode: "uncontrolled",
    initialValues: { slug: "", name: "", description: "" },
  });
  const { failures, submitting, submit } = useSubmission(form);

  const onSubmit = form.onSubmit(async ({ slug, name, description }) => {
    const input = {
      slug: slug.trim(),
      name: name.trim() || null,
      description: description.trim() || null,
    };
    const payload = await submit(
      () => createSegment({ input }),
      (data) => data.createSegment,
    );
    if (payload) {
      notifications.show({ message: `The segment ${input.slug} is created.` });
      navigate(segmentPath(input.slug));
    }
  });

  return (
    <form onSubmit={onSubmit} noValidate>
      <Stack>
        <TextInput
          label="Slug"
          description="The name that programs use. It never changes. Letters A-Z and a-z, digits, _ . and -"
          withAsterisk
          required
          maxLength={255}
          autoComplete="off"
          spellCheck={false}
          data-autofocus
          key={form.key("slug")}
          {...form.getInputProps("slug")}
        />
        <TextInput
          label="Name"
          description="The name for people."
          maxLength={255}
          key={form.key("name")}
          {...form.getInputProps("name")}
        />
        <Textarea
          label="Description"
          description="What the segment is for."
          maxLength={4096}
          autosize
          minRows={2}
          maxRows={8}
          key={form.key("description")}
          {...form.getInputProps("description")}
        />
        <FormErrors messages={failures} />
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            Cancel
          </Button>
          <Button type="submit" loading={submitting}>
            Create segment
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
