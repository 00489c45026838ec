import { Button, Pagination, Skeleton, Table, Text, TextInput } from "@mantine/core";
import { Plus, Search } from "lucide-react";
import { useState } from "react";

import { useSession } from "../../app/session";
import { ErrorAlert } from "../../components/errors";
import { useQueryKeepingData } from "../../components/last-data";
import { ShowAsGraphQL } from "../../components/page";
import { Section } from "../../components/section";
import { UserMembershipsDocument } from "../../graphql/operations";
import { AddToSegments } from "./add-to-segments";
import { MembershipRow } from "./membership-row";
import { RemoveFromSegment } from "./remove-from-segment";

const PAGE_SIZE = 25;

/** The segments that a user is in now. */
export function Memberships({ id }: { id: string }) {
  const { hasRole } = useSession();
  const [{ data, error, fetching }, refresh] = useQueryKeepingData({
    query: UserMembershipsDocument,
    variables: { id },
  });
  const [adding, setAdding] = useState(false);
  const [removing, setRemoving] = useState<string>();
  const [filter, setFilter] = useState("");
  const [page, setPage] = useState(1);

  const all = data?.user?.memberships;
  const matching = (all ?? []).filter(({ segment }) =>
    `${segment.slug}\n${segment.name ?? ""}`.toLowerCase().includes(filter.toLowerCase()),
  );
  const pages = Math.max(1, Math.ceil(matching.length / PAGE_SIZE));
  const current = Math.min(page, pages);
  const shown = matching.slice((current - 1) * PAGE_SIZE, current * PAGE_SIZE);
  return (
    <Section
      title="Segments"
      actions={
        <>
          <ShowAsGraphQL document={UserMembershipsDocument} variables={{ id }} />
          {hasRole("EDITOR") && (
            <Button
              size="xs"
              leftSection={<Plus size={16} aria-hidden />}
              onClick={() => setAdding(true)}
            >
              Add to segments
            </Button>
          )}
        </>
      }
    >
      <ErrorAlert error={error} onRetry={refresh} />
      {!all && fetching && <Skeleton h={160} />}
      {all && all.length > PAGE_SIZE && (
        <TextInput
          label={`Search these ${all.length} segments`}
          leftSection={<Search size={16} aria-hidden />}
          maw={360}
          value={filter}
          onChange={(event) => setFilter(event.currentTarget.value)}
        />
      )}
      {all && matching.length === 0 && (
        <Text c="dimmed">
          {all.length > 0 ? "No segment matches." : "The user is in no segment."}
        </Text>
      )}
      {shown.length > 0 && (
        <Table.ScrollContainer minWidth={0} type="native">
          <Table aria-label="Segments of the user" verticalSpacing="xs">
            <Table.Thead>
              <Table.Tr>
                <Table.Th scope="col">Segment</Table.Th>
                <Table.Th scope="col" visibleFrom="md">
                  Cause
                </Table.Th>
                <Table.Th scope="col" visibleFrom="md">
                  Joined
                </Table.Th>
                <Table.Th scope="col" visibleFrom="md">
                  Ends
                </Table.Th>
                <Table.Th scope="col" visibleFrom="md">
                  Added by
                </Table.Th>
                <Table.Th scope="col" className="number">
                  Actions
                </Table.Th>
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {shown.map((membership) => (
                <MembershipRow
                  key={membership.id}
                  userId={id}
                  membership={membership}
                  onRemove={
                    hasRole("EDITOR") ? () => setRemoving(membership.segment.slug) : undefined
                  }
                />
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
      {pages > 1 && (
        <Pagination
          total={pages}
          value={current}
          onChange={setPage}
          size="sm"
          getControlProps={(control) => ({ "aria-label": `${control} page` })}
          getItemProps={(number) => ({ "aria-label": `Page ${number}` })}
        />
      )}
      <AddToSegments userId={id} opened={adding} onClose={() => setAdding(false)} />
      <RemoveFromSegment userId={id} slug={removing} onClose={() => setRemoving(undefined)} />
    </Section>
  );
}
