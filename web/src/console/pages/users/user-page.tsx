import { Alert, Grid, Skeleton, Stack } from "@mantine/core";
import { UserX } from "lucide-react";

import { ErrorAlert } from "../../components/errors";
import { useQueryKeepingData } from "../../components/last-data";
import { Page } from "../../components/page";
import { Time } from "../../components/values";
import { UserHeadDocument } from "../../graphql/operations";
import { Explanation } from "./explanation";
import { Memberships } from "./memberships";
import { UserActions } from "./user-actions";
import { UserHistory } from "./user-history";

interface Props {
  id: string;
  /** The segment and the time to explain. */
  explain?: { slug: string; at: string } | undefined;
}

/** A user, who may be deleted or may never have existed. */
export function UserPage({ id, explain = { slug: "", at: "" } }: Props) {
  const [{ data, error }, refresh] = useQueryKeepingData({
    query: UserHeadDocument,
    variables: { id },
  });
  const user = data?.user;
  // An id that the server rejects has no history, either.
  if (error && !data?.user) {
    return (
      <Page title={`User ${id}`}>
        <ErrorAlert error={error} onRetry={refresh} />
      </Page>
    );
  }
  return (
    <Page
      title={`User ${id}`}
      description={
        user ? (
          <>
            {user.key ? `Key ${user.key}` : "No key"} · created <Time at={user.createdAt} />
          </>
        ) : (
          data && "This user does not exist"
        )
      }
      actions={data && <UserActions id={id} user={user ?? null} />}
    >
      {!data ? (
        <Skeleton h={320} />
      ) : (
        <Grid gap="lg">
          <Grid.Col span={{ base: 12, lg: 8 }}>
            <Stack gap="lg">
              {user ? (
                <Memberships id={id} />
              ) : (
                <Alert color="yellow" icon={<UserX aria-hidden />} title="This user does not exist">
                  The user is in no segment. If the user was deleted, the history shows the joins
                  and leaves until then.
                </Alert>
              )}
              <Explanation userId={id} {...explain} />
            </Stack>
          </Grid.Col>
          <Grid.Col span={{ base: 12, lg: 4 }}>
            <UserHistory id={id} />
          </Grid.Col>
        </Grid>
      )}
    </Page>
  );
}
