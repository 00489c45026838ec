import { Anchor, Loader, Tabs, Text } from "@mantine/core";
import type { ComponentType } from "react";
import { useQuery } from "urql";
import { Link, useLocation } from "wouter";

import { useSession } from "../../app/session";
import { ErrorAlert } from "../../components/errors";
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

const TABS: Record<string, Tab> = {
    overview: { label: "Overview", Content: OverviewTab },
    rollout: { label: "Rollout", Content: RolloutTab },
    members: { label: "Members", Content: MembersTab },
    imports: { label: "Imports", Content: ImportsTab },
    exports: { label: "Exports", Content: ExportsTab },
    history: { label: "History", Content: HistoryTab },
    audit: { label: "Audit log", Content: AuditTab, role: "EDITOR" },
};

interface Props {
    slug: string;
    tab: string | undefined;
}

export function SegmentPage({ slug, tab = "overview" }: Props) {
    const [{ data, error, fetching }, refresh] = useQuery({
        query: SegmentHeadDocument,
        variables: { slug },
    });
    const [, navigate] = useLocation();
    const { may } = useSession();
    const segment = data?.segment;
    if (!segment) {
        return (
            <Page title={slug}>
                <ErrorAlert error={error} onRetry={refresh} />
                {fetching && <Loader aria-label="Loading the segment" />}
                {data && !error && (
                    <Text>
                        There is no segment with this slug now.{" "}
                        <Anchor component={Link} href="/segments">
                            Show the segments
                        </Anchor>
                    </Text>
                )}
            </Page>
        );
    }
    const tabs = Object.entries(TABS).filter(([, { role }]) => !role || may(role));
    const Content = tabs.find(([value]) => value === tab)?.[1].Content ?? OverviewTab;
    return (
        <Page title={segment.name ?? segment.slug} description={segment.name && segment.slug}>
            <Tabs value={tab} onChange={(value) => value && navigate(segmentPath(slug, value))}>
                <Tabs.List>
                    {tabs.map(([value, { label }]) => (
                        <Tabs.Tab key={value} value={value}>
                            {label}
                        </Tabs.Tab>
                    ))}
                </Tabs.List>
                <Tabs.Panel value={tab} pt="md">
                    <Content slug={slug} />
                </Tabs.Panel>
            </Tabs>
        </Page>
    );
}
