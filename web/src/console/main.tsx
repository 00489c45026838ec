import "@mantine/core/styles.css";
import "@mantine/notifications/styles.css";
import "./app/page.css";

import { MantineProvider } from "@mantine/core";
import { ModalsProvider } from "@mantine/modals";
import { Notifications } from "@mantine/notifications";
import { createRoot } from "react-dom/client";
import { Router } from "wouter";
import { useHashLocation } from "wouter/use-hash-location";

import { Routes } from "./app/routes";
import { SessionProvider } from "./app/session";
import { Shell } from "./app/shell";
import { cssVariablesResolver, theme } from "./app/theme";

// The path after `#` names the page, so that the server has one address for the console.
createRoot(document.getElementById("console")!).render(
    <MantineProvider
        theme={theme}
        cssVariablesResolver={cssVariablesResolver}
        defaultColorScheme="auto"
    >
        <Notifications position="bottom-right" />
        <SessionProvider>
            <ModalsProvider>
                <Router hook={useHashLocation}>
                    <Shell>
                        <Routes />
                    </Shell>
                </Router>
            </ModalsProvider>
        </SessionProvider>
    </MantineProvider>,
);
