import { Alert, Anchor, Group, Progress, Skeleton, Stack, Text, Title } from "@mantine/core";
import { ArrowLeft, CircleAlert, Info } from "lucide-react";
import { Link, Redirect } from "wouter";

import { IMPORT_MODE_LABELS, labelOf } from "../../../components/enum-labels";
import { ErrorAlert } from "../../../components/errors";
import { useQueryKeepingData } from "../../../components/last-data";
import { segmentPath } from "../../../components/links";
import { ShowAsGraphQL } from "../../../components/page";
import { usePolling } from "../../../components/polling";
import { StatusBadge, Time } from "../../../components/values";
import { formatPercent } from "../../../format";
import { ImportDetailDocument, type ImportDetailQuery } from "../../../graphql/operations";
import { ImportActions } from "./import-actions";
import {
  ACTIVE,
  FINISHED,
  describeFailure,
  describeRejections,
  describeStatus,
} from "./import-texts";
import { OutcomeTable } from "./outcome-table";
import { importPath } from "./paths";
import { RejectionTable } from "./rejection-table";

export type ImportRecord = NonNullable<ImportDetailQuery["import"]>;

/** How long after the end of an import the page waits for its result file. */
const RESULT_SECONDS = 60;
/** A file may be uploaded by another program, hours later. */
const UPLOAD_MILLISECONDS = 10_000;

/** One import: its status, what it changes, and its actions. */
export function ImportDetail({ slug, id }: { slug: string; id: string }) {
  const [{ data, error }, refresh] = useQueryKeepingData({
    query: ImportDetailDocument,
    variables: { id },
  });
  const record = data?.import;
  const isWorking = record ? ACTIVE.includes(record.status) || awaitsResult(record) : false;
  const awaitsUpload = record?.status === "AWAITING_UPLOAD";
  usePolling(refresh, isWorking || awaitsUpload, awaitsUpload ? UPLOAD_MILLISECONDS : undefined);
  if (record && record.segment.slug !== slug) {
    return <Redirect to={importPath(record.segment.slug, id)} replace />;
  }
  return (
    <Stack maw={960}>
      <Group justify="space-between">
        <Anchor component={Link} href={segmentPath(slug, "imports")} size="sm">
          <Group gap={4} wrap="nowrap" component="span">
            <ArrowLeft size={16} aria-hidden />
            All imports
          </Group>
        </Anchor>
        <ShowAsGraphQL document={ImportDetailDocument} variables={{ id }} />
      </Group>
      <ErrorAlert error={error} onRetry={refresh} />
      {!data && !error && <Skeleton height={240} aria-label="Loading the import" />}
      {data && !record && !error && <Text>There is no import with the id {id}.</Text>}
      {record && (
        <>
          <Heading record={record} />
          <Status record={record} />
          <ImportActions
            // The errors and dialogs of one status have no meaning in the next.
            key={record.status}
            slug={slug}
            record={record}
            refresh={refresh}
          />
          <OutcomeTable record={record} awaitsResult={awaitsResult(record)} />
          <RejectionTable record={record} />
        </>
      )}
    </Stack>
  );
}

function awaitsResult({ status, rows, finishedAt, resultUrl }: ImportRecord): boolean {
  const isRecent = !!finishedAt && Date.now() - Date.parse(finishedAt) < RESULT_SECONDS * 1000;
  return FINISHED.includes(status) && rows !== null && !resultUrl && isRecent;
}

function Heading({ record }: { record: ImportRecord }) {
  return (
    <div>
      <Group gap="sm">
        <Title order={2} size="h3">
          Import {record.id}
        </Title>
        <StatusBadge status={record.status} />
      </Group>
      <Text c="dimmed" size="sm" component="div" className="break">
        {labelOf(IMPORT_MODE_LABELS, record.mode)}, created <Time at={record.createdAt} />
        {record.actor && ` by ${record.actor}`}
        {record.finishedAt && (
          <>
            , finished <Time at={record.finishedAt} />
          </>
        )}
      </Text>
    </div>
  );
}

function Status({ record }: { record: ImportRecord }) {
  const { status, progress, failure } = record;
  const isReading = status === "QUEUED" || status === "VALIDATING";
  const percent = Math.floor(progress * 100);
  const isError = status === "REFUSED" || status === "FAILED";
  const text = `${describeStatus(record)} ${status === "REFUSED" ? "" : describeRejections(record)}`;
  return (
    <Stack gap="xs">
      {(isReading || status === "APPLYING") && (
        <Group wrap="nowrap">
          <Progress.Root flex={1} size="lg">
            <Progress.Section
              value={isReading ? 100 : percent}
              animated={isReading}
              striped={isReading}
              aria-label={isReading ? "Checking the list" : "Applied users"}
            />
          </Progress.Root>
          {!isReading && <Text className="number">{formatPercent(percent)}</Text>}
        </Group>
      )}
      <div role="status">
        {failure ? (
          <Alert
            color={isError ? "red" : "orange"}
            icon={isError ? <CircleAlert aria-hidden /> : <Info aria-hidden />}
            className="break"
          >
            <Text size="sm" fw={600}>
              {describeFailure(record)}
            </Text>
            <Text size="sm">{text}</Text>
          </Alert>
        ) : (
          text
        )}
      </div>
    </Stack>
  );
}
