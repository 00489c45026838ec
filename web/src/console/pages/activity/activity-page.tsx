import { Group, Stack, Tabs, TextInput } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { useState } from "react";
import { useLocation } from "wouter";

import { useSession } from "../../app/session";
import { DateTimeInput } from "../../components/forms";
import { Page } from "../../components/page";
import { AuditLog } from "./audit-log";
import { ChangesFeed } from "./changes-feed";

const TYPING_MILLISECONDS = 400;

/** The change feed, and the audit log for those who may read it. */
export function ActivityPage({ tab }: { tab: string | undefined }) {
    const { may } = useSession();
    const [, navigate] = useLocation();
    const shown = tab === "audit" && may("EDITOR") ? "audit" : "changes";
    return (
        <Page
            title="Activity"
            description="Joins and leaves as they happen, and who changed segments, rollouts and API keys."
        >
            <Tabs
                value={shown}
                onChange={(value) => navigate(`/activity/${value}`)}
                keepMounted={false}
            >
                <Tabs.List>
                    <Tabs.Tab value="changes">Changes</Tabs.Tab>
                    {may("EDITOR") && <Tabs.Tab value="audit">Audit log</Tabs.Tab>}
                </Tabs.List>
                <Tabs.Panel value="changes" pt="md">
                    <ChangesFeed />
                </Tabs.Panel>
                <Tabs.Panel value="audit" pt="md">
                    <FilteredAuditLog />
                </Tabs.Panel>
            </Tabs>
        </Page>
    );
}

function FilteredAuditLog() {
    const [slug, setSlug] = useState("");
    const [actor, setActor] = useState("");
    const [from, setFrom] = useState("");
    const [to, setTo] = useState("");
    const [filters] = useDebouncedValue(
        {
            slug: slug.trim() || undefined,
            actor: actor || undefined,
            from: from || undefined,
            to: to || undefined,
        },
        TYPING_MILLISECONDS,
    );
    return (
        <Stack>
            <Group align="flex-end">
                <TextInput
                    label="Segment"
                    placeholder="All"
                    value={slug}
                    onChange={(event) => setSlug(event.currentTarget.value)}
                />
                <TextInput
                    label="API key"
                    placeholder="All"
                    value={actor}
                    onChange={(event) => setActor(event.currentTarget.value)}
                />
                <DateTimeInput label="From" value={from} onChange={setFrom} />
                <DateTimeInput label="To" value={to} onChange={setTo} />
            </Group>
            <AuditLog filters={filters} />
        </Stack>
    );
}
