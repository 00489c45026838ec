import { Loader, Stack, Table, Text } from "@mantine/core";
import { useClient } from "urql";

import { DownloadButton } from "../../components/download-button";
import { describeError, ErrorAlert } from "../../components/errors";
import { useQueryKeepingData } from "../../components/last-data";
import { UserLink } from "../../components/links";
import { Page, ShowAsGraphQL } from "../../components/page";
import { PageButtons, usePagination } from "../../components/pagination";
import { jobPollingInterval, usePolling } from "../../components/polling";
import { FormattedNumber, StatusBadge, Time } from "../../components/values";
import { formatBytes } from "../../format";
import { ReportLinkDocument, ReportsDocument, type ReportsQuery } from "../../graphql/operations";
import { ReportForm } from "./report-form";

type Report = NonNullable<ReportsQuery["reports"]>["nodes"][number];

export function ReportsPage() {
  const pagination = usePagination();
  const variables = { first: 25, after: pagination.after };
  const [{ data, error, fetching }, refresh] = useQueryKeepingData({
    query: ReportsDocument,
    variables,
  });
  const reports = data?.reports?.nodes ?? [];
  const interval = jobPollingInterval(reports, Date.now());
  usePolling(refresh, interval !== null, interval ?? undefined);
  return (
    <Page
      title="Reports"
      description="A report is a CSV file of all joins and leaves of a month."
      actions={<ShowAsGraphQL document={ReportsDocument} variables={variables} />}
    >
      <ReportForm />
      <ErrorAlert error={error} onRetry={refresh} />
      {!data && fetching && <Loader aria-label="Loading the reports" />}
      {data?.reports && reports.length === 0 && (
        <Text c="dimmed">There are no reports yet. Create one with the form above.</Text>
      )}
      {reports.length > 0 && <ReportsTable reports={reports} />}
      <PageButtons pagination={pagination} pageInfo={data?.reports?.pageInfo} />
    </Page>
  );
}

function ReportsTable({ reports }: { reports: readonly Report[] }) {
  return (
    <Table.ScrollContainer minWidth={640}>
      <Table highlightOnHover verticalSpacing="sm" aria-label="Reports">
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Month</Table.Th>
            <Table.Th>Users</Table.Th>
            <Table.Th>Status</Table.Th>
            <Table.Th className="number">Rows</Table.Th>
            <Table.Th>Created</Table.Th>
            <Table.Th>File</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody aria-live="polite">
          {reports.map((report) => (
            <Table.Tr key={report.id}>
              <Table.Td className="nowrap">{formatMonth(report)}</Table.Td>
              <Table.Td>{report.userId ? <UserLink id={report.userId} /> : "All users"}</Table.Td>
              <Table.Td>
                <Stack gap={2} align="flex-start">
                  <StatusBadge status={report.status} />
                  {report.failure && (
                    <Text size="xs" className="break">
                      {report.failure}
                    </Text>
                  )}
                </Stack>
              </Table.Td>
              <Table.Td className="number">
                <FormattedNumber value={report.rowCount} />
              </Table.Td>
              <Table.Td>
                <Time at={report.createdAt} relative />
              </Table.Td>
              <Table.Td>
                <ReportFile report={report} />
              </Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}

function ReportFile({ report }: { report: Report }) {
  const client = useClient();
  if (!report.downloadUrl) {
    return "–";
  }
  const sign = async () => {
    const { data, error } = await client.query(
      ReportLinkDocument,
      { id: report.id },
      { requestPolicy: "network-only" },
    );
    if (error) {
      throw new Error(describeError(error));
    }
    return data?.report?.downloadUrl ?? null;
  };
  return (
    <DownloadButton
      href={report.downloadUrl}
      sign={sign}
      size="xs"
      aria-label={`Download ${report.fileName}`}
    >
      {report.sizeBytes == null ? "Download" : `Download (${formatBytes(report.sizeBytes)})`}
    </DownloadButton>
  );
}

function formatMonth({ year, month }: { year: number; month: number }): string {
  return `${year}-${String(month).padStart(2, "0")}`;
}
