import { Button, Group, Loader, Skeleton, Stack, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { UserPlus } from "lucide-react";
import { useState } from "react";

import { useSession } from "../../../app/session";
import { ErrorAlert } from "../../../components/errors";
import { useQueryKeepingData } from "../../../components/last-data";
import { ShowAsGraphQL } from "../../../components/page";
import { PageButtons, usePagination } from "../../../components/pagination";
import { formatNumber } from "../../../format";
import { SegmentMemberCountDocument, SegmentMembersDocument } from "../../../graphql/operations";
import { AddUsers } from "./add-users";
import { FindMember, FoundUsers } from "./find-member";
import { SelectableMembers } from "./selectable-members";

const PAGE_SIZE = 50;
const NONE: ReadonlySet<string> = new Set();

export function MembersTab({ slug }: { slug: string }) {
  const { hasRole } = useSession();
  const [adding, { open, close }] = useDisclosure();
  const [searchText, setSearchText] = useState("");
  return (
    <Stack>
      <Group justify="space-between" align="flex-end">
        <FindMember searchText={searchText} onFind={setSearchText} />
        <Group gap="xs">
          <MemberCount slug={slug} />
          {hasRole("EDITOR") && (
            <Button leftSection={<UserPlus size={18} aria-hidden />} onClick={open}>
              Add users
            </Button>
          )}
        </Group>
      </Group>
      {searchText ? (
        <FoundUsers key={searchText} slug={slug} searchText={searchText} />
      ) : (
        <MemberList slug={slug} onAdd={open} />
      )}
      <AddUsers slug={slug} opened={adding} onClose={close} />
    </Stack>
  );
}

function MemberCount({ slug }: { slug: string }) {
  const [{ data, error }] = useQueryKeepingData({
    query: SegmentMemberCountDocument,
    variables: { slug },
  });
  if (error) {
    return null;
  }
  const count = data?.segment?.memberCount;
  return count == null ? (
    <Skeleton h={16} w={110} />
  ) : (
    <Text size="sm" c="dimmed" role="status">
      {formatNumber(count)} {count === 1 ? "member" : "members"}
    </Text>
  );
}

function MemberList({ slug, onAdd }: { slug: string; onAdd: () => void }) {
  const { hasRole } = useSession();
  const pagination = usePagination(slug);
  const variables = { slug, first: PAGE_SIZE, after: pagination.after };
  const [{ data, error, fetching }, refresh] = useQueryKeepingData({
    query: SegmentMembersDocument,
    variables,
  });
  // A selection belongs to one page.
  const [selection, setSelection] = useState({ page: pagination.after, users: NONE });
  const selected = selection.page === pagination.after ? selection.users : NONE;
  const select = (users: ReadonlySet<string>) => setSelection({ page: pagination.after, users });

  const members = data?.segment?.members.nodes;
  return (
    <>
      <ErrorAlert error={error} onRetry={refresh} />
      {!members && fetching && <Loader aria-label="Loading the members" />}
      {members && members.length > 0 && (
        <SelectableMembers slug={slug} members={members} selected={selected} onSelect={select} />
      )}
      {members?.length === 0 && !fetching && (
        <Stack align="center" py="xl" gap="sm">
          <Text fw={600}>
            {pagination.hasPrevious ? "There are no more members." : "The segment has no members."}
          </Text>
          {hasRole("EDITOR") && !pagination.hasPrevious && (
            <Button variant="default" onClick={onAdd}>
              Add users
            </Button>
          )}
        </Stack>
      )}
      <Group justify="space-between">
        <ShowAsGraphQL document={SegmentMembersDocument} variables={variables} />
        <PageButtons pagination={pagination} pageInfo={data?.segment?.members.pageInfo} />
      </Group>
    </>
  );
}
