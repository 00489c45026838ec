import { Group, Skeleton, Stack, Table, Text } from "@mantine/core";
import { useClient } from "urql";

import { DownloadButton } from "../../../components/download-button";
import { describeError, ErrorAlert } from "../../../components/errors";
import { useQueryKeepingData } from "../../../components/last-data";
import { ShowAsGraphQL } from "../../../components/page";
import { PageButtons, usePagination } from "../../../components/pagination";
import { jobPollingInterval, usePolling } from "../../../components/polling";
import { FormattedNumber, StatusBadge, Time } from "../../../components/values";
import { formatBytes } from "../../../format";
import {
  ExportLinkDocument,
  type ExportRowFragment,
  SegmentExportsDocument,
} from "../../../graphql/operations";
import { ExportForm } from "./export-form";

const PAGE_SIZE = 25;

/** The exports of a segment, and a form that creates one. */
export function ExportsTab({ slug }: { slug: string }) {
  const pagination = usePagination(slug);
  const variables = { slug, first: PAGE_SIZE, after: pagination.after };
  const [{ data, error }, refresh] = useQueryKeepingData({
    query: SegmentExportsDocument,
    variables,
  });
  const exports = data?.exports?.nodes;
  const interval = jobPollingInterval(exports ?? [], Date.now());
  usePolling(refresh, interval !== null, interval ?? undefined);
  return (
    <Stack>
      <Group justify="space-between">
        <Text c="dimmed" size="sm">
          An export is a CSV file with the members of the segment at one time.
        </Text>
        <ShowAsGraphQL document={SegmentExportsDocument} variables={variables} />
      </Group>
      <ExportForm
        slug={slug}
        onCreated={() => {
          pagination.first();
          refresh({ requestPolicy: "network-only" });
        }}
      />
      <ErrorAlert error={error} onRetry={refresh} />
      {!exports && !error && <Skeleton height={160} aria-label="Loading the exports" />}
      {exports?.length === 0 && (
        <Text>There are no exports yet. Create one with the form above.</Text>
      )}
      {exports && exports.length > 0 && (
        <Table.ScrollContainer minWidth={760}>
          <Table aria-label="Exports, newest first">
            <Table.Thead>
              <Table.Tr>
                <Table.Th>Members at</Table.Th>
                <Table.Th>File</Table.Th>
                <Table.Th>Status</Table.Th>
                <Table.Th className="number">Members</Table.Th>
                <Table.Th className="number">Size</Table.Th>
                <Table.Th>Created</Table.Th>
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {exports.map((record) => (
                <ExportListRow key={record.id} record={record} />
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
      <PageButtons pagination={pagination} pageInfo={data?.exports?.pageInfo} />
    </Stack>
  );
}

function isUnfinished({ status }: ExportRowFragment): boolean {
  return status === "QUEUED" || status === "RUNNING";
}

function ExportListRow({ record }: { record: ExportRowFragment }) {
  const client = useClient();
  const { id, sizeBytes, downloadUrl, fileName, failure } = record;
  const label = fileName.endsWith(".gz") ? "Download CSV, gzip" : "Download CSV";
  const sign = async () => {
    const { data, error } = await client.query(
      ExportLinkDocument,
      { id },
      { requestPolicy: "network-only" },
    );
    if (error) {
      throw new Error(describeError(error));
    }
    return data?.export?.downloadUrl ?? null;
  };
  return (
    <Table.Tr>
      <Table.Td>
        <Time at={record.asOf} />
      </Table.Td>
      <Table.Td className="break">
        {downloadUrl && (
          <DownloadButton
            size="xs"
            href={downloadUrl}
            sign={sign}
            aria-label={`${label}: ${fileName}`}
          >
            {label}
          </DownloadButton>
        )}
        {failure}
        {isUnfinished(record) && <Skeleton height={30} width={140} />}
      </Table.Td>
      <Table.Td>
        <StatusBadge status={record.status} />
      </Table.Td>
      <Table.Td className="number">
        <FormattedNumber value={record.rowCount} />
      </Table.Td>
      <Table.Td className="number nowrap">
        {sizeBytes === null ? "–" : formatBytes(sizeBytes)}
      </Table.Td>
      <Table.Td>
        <Time at={record.createdAt} relative />
      </Table.Td>
    </Table.Tr>
  );
}
