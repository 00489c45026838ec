import {
  ActionIcon,
  Anchor,
  AppShell,
  Burger,
  Button,
  Group,
  NavLink,
  Text,
  useComputedColorScheme,
  useMantineColorScheme,
} from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { modals } from "@mantine/modals";
import {
  Activity,
  Braces,
  FileText,
  KeyRound,
  LogOut,
  Moon,
  Sun,
  UserSearch,
  UsersRound,
} from "lucide-react";
import { type ReactNode, useEffect } from "react";
import { Link, useLocation } from "wouter";

import { labelOf, ROLE_LABELS } from "../components/enum-labels";
import { ErrorBoundary } from "./error-boundary";
import { graphqlPath } from "./public-settings";
import { hasGraphiQL } from "./server";
import { useSession } from "./session";

const SECTIONS = [
  { path: "/segments", label: "Segments", Icon: UsersRound },
  { path: "/users", label: "Users", Icon: UserSearch },
  { path: "/reports", label: "Reports", Icon: FileText },
  { path: "/activity", label: "Activity", Icon: Activity },
  { path: "/keys", label: "API keys", Icon: KeyRound, role: "ADMIN" },
] as const;

/** The header and the navigation around each page. */
export function Shell({ children }: { children: ReactNode }) {
  const [opened, { toggle, close }] = useDisclosure();
  const { session, hasRole, signOut } = useSession();
  const [location] = useLocation();
  // A dialog belongs to the page that opened it.
  useEffect(() => modals.closeAll(), [location]);
  return (
    <AppShell
      header={{ height: 56 }}
      navbar={{ width: 220, breakpoint: "sm", collapsed: { mobile: !opened } }}
      padding="md"
    >
      <AppShell.Header>
        <Group h="100%" px="md" justify="space-between" wrap="nowrap">
          <Group gap="sm" wrap="nowrap">
            <Burger
              opened={opened}
              onClick={toggle}
              hiddenFrom="sm"
              size="sm"
              aria-label={opened ? "Close the navigation" : "Open the navigation"}
              aria-expanded={opened}
            />
            <Anchor component={Link} href="/segments" underline="never" c="inherit" fw={700}>
              SegmentQL
            </Anchor>
          </Group>
          <Group gap="xs" wrap="nowrap">
            {session && (
              <>
                <Text size="sm" visibleFrom="xs" truncate maw={260}>
                  {session.name}, {labelOf(ROLE_LABELS, session.role)}
                </Text>
                <Button
                  variant="default"
                  size="xs"
                  onClick={signOut}
                  leftSection={<LogOut size={16} aria-hidden />}
                >
                  Sign out
                </Button>
              </>
            )}
            <ColorSchemeButton />
          </Group>
        </Group>
      </AppShell.Header>
      <AppShell.Navbar p="xs">
        {SECTIONS.filter((section) => !("role" in section) || hasRole(section.role)).map(
          ({ path, label, Icon }) => (
            <NavLink
              key={path}
              component={Link}
              href={path}
              label={label}
              leftSection={<Icon size={18} aria-hidden />}
              active={location.startsWith(path)}
              aria-current={location.startsWith(path) ? "page" : undefined}
              onClick={close}
            />
          ),
        )}
        {hasGraphiQL && (
          <NavLink
            href={graphqlPath()}
            label="GraphiQL"
            leftSection={<Braces size={18} aria-hidden />}
          />
        )}
      </AppShell.Navbar>
      <AppShell.Main>
        <ErrorBoundary location={location}>{children}</ErrorBoundary>
      </AppShell.Main>
    </AppShell>
  );
}

function ColorSchemeButton() {
  const { setColorScheme } = useMantineColorScheme();
  const isDark = useComputedColorScheme("light") === "dark";
  return (
    <ActionIcon
      variant="default"
      size="lg"
      aria-label={isDark ? "Use light colors" : "Use dark colors"}
      onClick={() => setColorScheme(isDark ? "light" : "dark")}
    >
      {isDark ? <Sun size={18} aria-hidden /> : <Moon size={18} aria-hidden />}
    </ActionIcon>
  );
}
