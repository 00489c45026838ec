import { ActionIcon, Anchor, CopyButton, Group, Loader, Tabs, Text, Tooltip } from "@mantine/core";
import { Check, Copy } from "lucide-react";
import type { ComponentType } from "react";
import { Link, useLocation } from "wouter";

import { useSession } from "../../app/session";
import { ErrorAlert } from "../../components/errors";
import { useQueryKeepingData } from "../../components/last-data";
import { segmentPath } from "../../components/links";
import { Page } from "../../components/page";
import { type Role, SegmentHeadDocument } from "../../graphql/operations";
import { AuditTab } from "./audit/audit-tab";
import { ExportsTab } from "./exports/exports-tab";
import { HistoryTab } from "./history/history-tab";
import { ImportsTab } from "./imports/imports-tab";
import { MembersTab } from "./members/members-tab";
import { OverviewTab } from "./overview/overview-tab";
import { RolloutTab } from "./rollout/rollout-tab";

interface Tab {
  label: string;
  Content: ComponentType<{ slug: string }>;
  role?: Role;
}

const OVERVIEW: [string, Tab] = ["overview", { label: "Overview", Content: OverviewTab }];

const TABS: [string, Tab][] = [
  OVERVIEW,
  ["rollout", { label: "Rollout", Content: RolloutTab }],
  ["members", { label: "Members", Content: MembersTab }],
  ["imports", { label: "Imports", Content: ImportsTab }],
  ["exports", { label: "Exports", Content: ExportsTab }],
  ["history", { label: "History", Content: HistoryTab }],
  ["audit", { label: "Audit log", Content: AuditTab, role: "EDITOR" }],
];

interface Props {
  slug: string;
  tab: string | undefined;
}

export function SegmentPage({ slug, tab = "overview" }: Props) {
  const [{ data, error, fetching }, refresh] = useQueryKeepingData({
    query: SegmentHeadDocument,
    variables: { slug },
  });
  const [, navigate] = useLocation();
  const { hasRole } = useSession();
  const segment = data?.segment;
  if (!segment) {
    return (
      <Page title={slug}>
        <ErrorAlert error={error} onRetry={refresh} />
        {fetching && <Loader aria-label="Loading the segment" />}
        {data && !error && (
          <Text>
            There is no segment with this slug now.{" "}
            <Anchor component={Link} href="/segments" underline="always">
              Show the segments
            </Anchor>
          </Text>
        )}
      </Page>
    );
  }
  const tabs = TABS.filter(([, { role }]) => !role || hasRole(role));
  const [current, { Content }] = tabs.find(([value]) => value === tab) ?? OVERVIEW;
  return (
    <Page title={segment.name ?? segment.slug} description={<Slug slug={segment.slug} />}>
      <ErrorAlert error={error} onRetry={refresh} />
      <Tabs value={current} onChange={(value) => value && navigate(segmentPath(slug, value))}>
        <Tabs.List>
          {tabs.map(([value, { label }]) => (
            <Tabs.Tab key={value} value={value}>
              {label}
            </Tabs.Tab>
          ))}
        </Tabs.List>
        <Tabs.Panel value={current} pt="md">
          <Content slug={slug} />
        </Tabs.Panel>
      </Tabs>
    </Page>
  );
}

/** The slug, with a button that copies it. */
function Slug({ slug }: { slug: string }) {
  return (
    <Group gap={4} wrap="nowrap">
      <span className="break">{slug}</span>
      <CopyButton value={slug}>
        {({ copied, copy }) => (
          <Tooltip label={copied ? "Copied" : "Copy the slug"}>
            <ActionIcon
              variant="subtle"
              color="gray"
              aria-label={copied ? "Copied" : "Copy the slug"}
              onClick={copy}
            >
              {copied ? <Check size={16} aria-hidden /> : <Copy size={16} aria-hidden />}
            </ActionIcon>
          </Tooltip>
        )}
      </CopyButton>
    </Group>
  );
}
