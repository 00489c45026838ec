import { Anchor } from "@mantine/core";
import { Link } from "wouter";

export function segmentPath(slug: string, tab = ""): string {
  return `/segments/${encodeURIComponent(slug)}${tab && `/${tab}`}`;
}

/** The page that explains why a user is or is not in a segment, now or at a past time. */
export function explanationPath(userId: string, slug: string, at = ""): string {
  const path = `/users/${userId}/explain/${encodeURIComponent(slug)}`;
  return `${path}${at && `/${encodeURIComponent(at)}`}`;
}

/** A segment's slug, as a link to its page. A deleted segment has no page. */
export function SegmentLink({ slug, deletedAt }: { slug: string; deletedAt?: string | null }) {
  if (deletedAt) {
    return <span className="break">{slug}</span>;
  }
  return (
    <Anchor component={Link} href={segmentPath(slug)} className="break" inherit>
      {slug}
    </Anchor>
  );
}

/** A user's id, as a link to the user's page, with the key if there is one. */
export function UserLink({ id, userKey }: { id: string; userKey?: string | null }) {
  return (
    <Anchor component={Link} href={`/users/${id}`} className="break" inherit>
      {id}
      {userKey && ` (${userKey})`}
    </Anchor>
  );
}
