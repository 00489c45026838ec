import { Button, Checkbox, Group, Paper, SegmentedControl, Stack } from "@mantine/core";
import { useForm } from "@mantine/form";
import { notifications } from "@mantine/notifications";
import { FileDown } from "lucide-react";
import { useMutation } from "urql";

import { DateTimeInput } from "../../../components/date-time-input";
import { FormErrors } from "../../../components/form-errors";
import { useSubmission } from "../../../components/use-submission";
import { CreateExportDocument } from "../../../graphql/operations";

interface Props {
  slug: string;
  onCreated: () => void;
}

/** Creates an export of the members, now or at a past time. */
export function ExportForm({ slug, onCreated }: Props) {
  const form = useForm({
    initialValues: { at: "now", asOf: "", gzip: false },
    validate: {
      asOf: (value, { at }) => (at === "past" && !value ? "Enter a time in the past." : null),
    },
  });
  const { failures, submitting, submit } = useSubmission(form);
  const [, createExport] = useMutation(CreateExportDocument);
  const create = async ({ at, asOf, gzip }: typeof form.values) => {
    const input = { slug, asOf: at === "past" ? asOf : null, gzip, waitSeconds: 0 };
    if (
      await submit(
        () => createExport({ input }),
        (data) => data.createExport,
      )
    ) {
      notifications.show({ color: "teal", message: "The export is being created." });
      onCreated();
    }
  };
  return (
    <Paper withBorder p="md" component="section" aria-label="New export">
      <form onSubmit={form.onSubmit(create)} noValidate>
        <Stack>
          <Group align="flex-start">
            <SegmentedControl
              aria-label="Time of the members"
              data={[
                { value: "now", label: "Members now" },
                { value: "past", label: "At a past time" },
              ]}
              {...form.getInputProps("at")}
            />
            {form.getValues().at === "past" && (
              <DateTimeInput
                aria-label="Past time"
                {...form.getInputProps("asOf")}
                value={form.getValues().asOf}
              />
            )}
            <Checkbox
              label="Compress with gzip"
              mt={8}
              {...form.getInputProps("gzip", { type: "checkbox" })}
            />
            <Button
              type="submit"
              loading={submitting}
              leftSection={<FileDown size={16} aria-hidden />}
            >
              Create export
            </Button>
          </Group>
          <FormErrors messages={failures} />
        </Stack>
      </form>
    </Paper>
  );
}
