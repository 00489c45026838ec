import { Anchor, Text } from "@mantine/core";
import { Link, Redirect, Route, Switch } from "wouter";

import { Page } from "../components/page";
import { ActivityPage } from "../pages/activity/activity-page";
import { KeysPage } from "../pages/keys/keys-page";
import { ReportsPage } from "../pages/reports/reports-page";
import { SegmentPage } from "../pages/segment/segment-page";
import { SegmentsPage } from "../pages/segments/segments-page";
import { UserPage } from "../pages/users/user-page";
import { UsersPage } from "../pages/users/users-page";
import { decodePart } from "./hash-location";

export function Routes() {
  return (
    <Switch>
      <Route path="/">
        <Redirect to="/segments" replace />
      </Route>
      <Route path="/segments" component={SegmentsPage} />
      <Route<{
        slug: string;
        tab?: string;
        item?: string;
      }> path="/segments/:slug/:tab?/:item?">
        {({ slug, tab }) => {
          const decoded = decodePart(slug);
          return decoded === null ? (
            <NotFound />
          ) : (
            <SegmentPage key={slug} slug={decoded} tab={tab} />
          );
        }}
      </Route>
      <Route path="/users" component={UsersPage} />
      <Route path="/users/:id">{({ id }) => <UserPage key={id} id={id} />}</Route>
      <Route path="/users/:id/explain/:slug/:at?">
        {(parts) => {
          const slug = decodePart(parts.slug);
          const at = decodePart(parts.at ?? "");
          return slug === null || at === null || (at && Number.isNaN(Date.parse(at))) ? (
            <NotFound />
          ) : (
            <UserPage key={parts.id} id={parts.id} explain={{ slug, at }} />
          );
        }}
      </Route>
      <Route path="/reports" component={ReportsPage} />
      <Route path="/activity/:tab?">{({ tab }) => <ActivityPage tab={tab} />}</Route>
      <Route path="/keys" component={KeysPage} />
      <Route component={NotFound} />
    </Switch>
  );
}

function NotFound() {
  return (
    <Page title="Page not found">
      <Text>
        There is no such page.{" "}
        <Anchor component={Link} href="/segments" underline="always">
          Show the segments
        </Anchor>
      </Text>
    </Page>
  );
}
