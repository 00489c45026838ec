import {
  Button,
  Checkbox,
  Group,
  NativeSelect,
  NumberInput,
  Paper,
  Stack,
  TextInput,
} from "@mantine/core";
import { useForm } from "@mantine/form";
import { notifications } from "@mantine/notifications";
import { useMutation } from "urql";

import { useSession } from "../../app/session";
import { FormErrors } from "../../components/form-errors";
import { useSubmission } from "../../components/use-submission";
import { CreateReportDocument } from "../../graphql/operations";
import { isYear, lastMonth, MONTHS } from "./months";

export function ReportForm() {
  const { hasRole } = useSession();
  const mayReportOnAll = hasRole("ADMIN");
  const form = useForm({
    initialValues: { userId: "", ...lastMonth(new Date()), withKeys: false },
    validate: {
      userId: (value) => (value.trim() || mayReportOnAll ? null : "Enter the id of a user."),
      year: (value) => (isYear(value) ? null : "Enter a year from 2000 to 9999."),
    },
  });
  const [, createReport] = useMutation(CreateReportDocument);
  const { failures, submit, submitting } = useSubmission(form);

  const onSubmit = form.onSubmit(async ({ userId, year, month, withKeys }) => {
    const input = {
      userId: userId.trim() || null,
      year: Number(year),
      month: Number(month),
      withKeys,
      waitSeconds: 0,
    };
    const payload = await submit(
      () => createReport({ input }),
      (data) => data.createReport,
    );
    if (payload) {
      notifications.show({
        message: "The report is being created. The list shows when it is ready.",
      });
    }
  });

  return (
    <Paper withBorder p="md" component="section" aria-label="New report">
      <form onSubmit={onSubmit} noValidate>
        <Stack gap="sm">
          <Group align="flex-start">
            <TextInput
              label="User id"
              description={mayReportOnAll ? "Empty: all users" : "The id of one user"}
              inputMode="numeric"
              {...form.getInputProps("userId")}
            />
            <NativeSelect
              label="Month"
              description="In UTC"
              data={MONTHS}
              {...form.getInputProps("month")}
            />
            <NumberInput
              label="Year"
              description="From 2000"
              w={110}
              min={2000}
              max={9999}
              clampBehavior="none"
              allowDecimal={false}
              {...form.getInputProps("year")}
            />
          </Group>
          <Checkbox
            label="Add a column with the users' keys"
            {...form.getInputProps("withKeys", { type: "checkbox" })}
          />
          <FormErrors messages={failures} />
          <Group>
            <Button type="submit" loading={submitting}>
              Create report
            </Button>
          </Group>
        </Stack>
      </form>
    </Paper>
  );
}
