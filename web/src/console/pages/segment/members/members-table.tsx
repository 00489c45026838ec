import { Anchor, Checkbox, Table, Text } from "@mantine/core";
import { Link } from "wouter";

import { segmentPath, UserLink } from "../../../components/links";
import { CauseBadge, Time } from "../../../components/values";
import type { MemberFieldsFragment } from "../../../graphql/operations";

interface Props {
  slug: string;
  members: readonly MemberFieldsFragment[];
  /** The ids of the selected users. Null if members cannot be selected. */
  selected: ReadonlySet<string> | null;
  onSelect: (selected: ReadonlySet<string>) => void;
}

export function MembersTable({ slug, members, selected, onSelect }: Props) {
  const selectedHere = members.filter(({ user }) => selected?.has(user.id)).length;
  const all = members.map(({ user }) => user.id);
  const toggle = (id: string) => {
    const changed = new Set(selected);
    if (!changed.delete(id)) {
      changed.add(id);
    }
    onSelect(changed);
  };
  return (
    <Table.ScrollContainer minWidth={720}>
      <Table aria-label="Members">
        <Table.Thead>
          <Table.Tr>
            {selected && (
              <Table.Td w={40}>
                <Checkbox
                  aria-label="Select all members on this page"
                  checked={selectedHere === members.length}
                  indeterminate={selectedHere > 0 && selectedHere < members.length}
                  onChange={(event) => onSelect(new Set(event.currentTarget.checked ? all : []))}
                />
              </Table.Td>
            )}
            <Table.Th scope="col">User</Table.Th>
            <Table.Th scope="col">Key</Table.Th>
            <Table.Th scope="col">Joined</Table.Th>
            <Table.Th scope="col">Ends</Table.Th>
            <Table.Th scope="col">Cause</Table.Th>
            <Table.Th scope="col">Added by</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {members.map((member) => {
            const { id, key } = member.user;
            return (
              <Table.Tr
                key={member.id}
                bg={selected?.has(id) ? "var(--mantine-color-default-hover)" : undefined}
              >
                {selected && (
                  <Table.Td>
                    <Checkbox
                      aria-label={`Select user ${id}`}
                      checked={selected.has(id)}
                      onChange={() => toggle(id)}
                    />
                  </Table.Td>
                )}
                <Table.Td className="nowrap">
                  <UserLink id={id} />
                </Table.Td>
                <Table.Td className="break">{key ?? <Nothing />}</Table.Td>
                <Table.Td>
                  <Time at={member.joinedAt} />
                </Table.Td>
                <Table.Td>
                  {member.expiresAt ? <Time at={member.expiresAt} relative /> : <Nothing />}
                </Table.Td>
                <Table.Td>
                  <CauseBadge cause={member.cause} />
                </Table.Td>
                <Table.Td className="break">
                  <AddedBy slug={slug} member={member} />
                </Table.Td>
              </Table.Tr>
            );
          })}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}

function AddedBy({ slug, member }: { slug: string; member: MemberFieldsFragment }) {
  if (member.import) {
    return (
      <>
        <Anchor component={Link} href={segmentPath(slug, "imports")} inherit>
          Import
        </Anchor>
        {member.actor && ` by ${member.actor}`}
      </>
    );
  }
  return member.actor ?? <Nothing />;
}

function Nothing() {
  return (
    <Text span inherit c="dimmed">
      –
    </Text>
  );
}
