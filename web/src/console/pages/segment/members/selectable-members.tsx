import { useSession } from "../../../app/session";
import type { MemberFieldsFragment } from "../../../graphql/operations";
import { MembersTable } from "./members-table";
import { RemoveMembers } from "./remove-members";

interface Props {
  slug: string;
  members: readonly MemberFieldsFragment[];
  /** The ids of the selected users. */
  selected: ReadonlySet<string>;
  onSelect: (selected: ReadonlySet<string>) => void;
}

/** A table of members, and the button that removes the selected ones if the role allows it. */
export function SelectableMembers({ slug, members, selected, onSelect }: Props) {
  const { hasRole } = useSession();
  if (!hasRole("EDITOR")) {
    return <MembersTable slug={slug} members={members} selected={null} onSelect={onSelect} />;
  }
  return (
    <>
      <RemoveMembers
        slug={slug}
        users={members.map(({ user }) => user.id).filter((id) => selected.has(id))}
        onRemoved={() => onSelect(new Set())}
      />
      <MembersTable slug={slug} members={members} selected={selected} onSelect={onSelect} />
    </>
  );
}
