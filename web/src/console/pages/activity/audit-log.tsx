import { Loader, Stack, Text } from "@mantine/core";

import { isReversed } from "../../components/date-range";
import { ErrorAlert } from "../../components/errors";
import { useQueryKeepingData } from "../../components/last-data";
import { ShowAsGraphQL } from "../../components/page";
import { PageButtons, usePagination } from "../../components/pagination";
import { AuditLogDocument } from "../../graphql/operations";
import { AuditTable } from "./audit-table";

/** The filters of the audit log. A filter that is undefined is not applied. */
export interface AuditFilters {
  slug?: string | undefined;
  actor?: string | undefined;
  from?: string | undefined;
  to?: string | undefined;
}

/** The entries of the audit log that match the filters, newest first, in pages. */
export function AuditLog({ filters }: { filters: AuditFilters }) {
  const pagination = usePagination(JSON.stringify(filters));
  const variables = { first: 50, after: pagination.after, ...filters };
  const [{ data, error, fetching }, refresh] = useQueryKeepingData({
    query: AuditLogDocument,
    variables,
    pause: isReversed({ from: filters.from ?? "", to: filters.to ?? "" }),
  });
  const entries = data?.auditLog?.nodes ?? [];
  return (
    <Stack>
      <ErrorAlert error={error} onRetry={refresh} />
      {!data && fetching && <Loader aria-label="Loading the audit log" />}
      {data?.auditLog && entries.length === 0 && <Text c="dimmed">There are no entries.</Text>}
      {entries.length > 0 && <AuditTable entries={entries} />}
      <PageButtons pagination={pagination} pageInfo={data?.auditLog?.pageInfo} />
      <div>
        <ShowAsGraphQL document={AuditLogDocument} variables={variables} />
      </div>
    </Stack>
  );
}
