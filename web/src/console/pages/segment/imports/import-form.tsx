import { Accordion, Anchor, Button, Checkbox, Group, Paper, Stack, Title } from "@mantine/core";
import { useForm } from "@mantine/form";
import { useState } from "react";
import { useClient } from "urql";
import { Link, useLocation } from "wouter";

import { FormErrors } from "../../../components/form-errors";
import { segmentPath } from "../../../components/links";
import { ShowAsGraphQL } from "../../../components/page";
import { useSubmission } from "../../../components/use-submission";
import { CreateImportDocument } from "../../../graphql/operations";
import { rememberForm, takeDraft } from "./drafts";
import { ListSourceFields } from "./list-source-fields";
import { ModeFields } from "./mode-fields";
import { FORMAT_FIELDS, FormatFields, OPTION_FIELDS, OptionFields } from "./option-fields";
import { importPath } from "./paths";
import type { UploadLink } from "./upload";
import { UploadPanel } from "./upload-panel";
import { type ImportValues, INITIAL_VALUES, toField, toInput, validate } from "./values";

interface RunningUpload {
  id: string;
  link: UploadLink;
  file: File;
}

/** The form "Import a list", and the upload of its file. */
export function ImportForm({ slug }: { slug: string }) {
  const [initialValues] = useState(() => takeDraft(slug) ?? INITIAL_VALUES);
  const form = useForm<ImportValues>({ initialValues, validate });
  const { failures, submitting, submit } = useSubmission(form, toField);
  const [upload, setUpload] = useState<RunningUpload | null>(null);
  const [opened, setOpened] = useState<string[]>([]);
  const [, navigate] = useLocation();
  const client = useClient();
  const values = form.getValues();
  const isFile = values.source === "file";

  const create = async () => {
    const sent = form.getValues();
    const payload = await submit(
      () => client.mutation(CreateImportDocument, { input: toInput(slug, sent) }).toPromise(),
      (data) => data.createImport,
    );
    if (!payload?.import) {
      return;
    }
    rememberForm(payload.import.id, sent);
    if (payload.upload && sent.file) {
      setUpload({ id: payload.import.id, link: payload.upload, file: sent.file });
    } else {
      navigate(importPath(slug, payload.import.id), { replace: true });
    }
  };

  if (upload) {
    return (
      <UploadPanel
        key={upload.id}
        {...upload}
        onStarted={() => navigate(importPath(slug, upload.id), { replace: true })}
        onCancelled={() => setUpload(null)}
        onNewLink={async () => {
          setUpload(null);
          await create();
        }}
      />
    );
  }
  // An error must not stay hidden in a collapsed section.
  const sections = new Set(opened);
  const hasError = (field: string) => field in form.errors;
  if (OPTION_FIELDS.some(hasError)) {
    sections.add("options");
  }
  if (FORMAT_FIELDS.some(hasError)) {
    sections.add("format");
  }
  return (
    <Paper component="section" maw={720} aria-labelledby="import-title">
      <form onSubmit={form.onSubmit(create)} noValidate>
        <Stack gap="lg">
          <Group justify="space-between">
            <Title order={2} size="h3" id="import-title">
              Import a list
            </Title>
            {values.source === "segments" || values.file ? (
              <ShowAsGraphQL
                document={CreateImportDocument}
                variables={{ input: toInput(slug, values) }}
              />
            ) : null}
          </Group>
          <ListSourceFields form={form} />
          <ModeFields form={form} />
          <Accordion multiple variant="contained" value={[...sections]} onChange={setOpened}>
            <Accordion.Item value="options">
              <Accordion.Control>More options</Accordion.Control>
              <Accordion.Panel>
                <OptionFields form={form} />
              </Accordion.Panel>
            </Accordion.Item>
            {isFile && (
              <Accordion.Item value="format">
                <Accordion.Control>File format</Accordion.Control>
                <Accordion.Panel>
                  <FormatFields form={form} />
                </Accordion.Panel>
              </Accordion.Item>
            )}
          </Accordion>
          <Checkbox
            label="Check first"
            description="Nothing changes until you have seen how many users join and leave, and apply the import."
            {...form.getInputProps("dryRun", { type: "checkbox" })}
          />
          <FormErrors messages={failures} />
          <Group>
            <Button type="submit" loading={submitting}>
              {submitLabel(isFile, values.dryRun)}
            </Button>
            <Anchor component={Link} href={segmentPath(slug, "imports")} size="sm">
              Show all imports
            </Anchor>
          </Group>
        </Stack>
      </form>
    </Paper>
  );
}

function submitLabel(isFile: boolean, isDryRun: boolean): string {
  if (isDryRun) {
    return isFile ? "Upload and check" : "Check";
  }
  return isFile ? "Upload and import" : "Import";
}
