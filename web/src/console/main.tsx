import "@mantine/core/styles.css";
import "@mantine/notifications/styles.css";
import "./app/page.css";

import { MantineProvider } from "@mantine/core";
import { ModalsProvider } from "@mantine/modals";
import { Notifications } from "@mantine/notifications";
import { createRoot } from "react-dom/client";
import { Router } from "wouter";

import { useEncodedHashLocation } from "./app/hash-location";
import { Routes } from "./app/routes";
import { SessionProvider } from "./app/session";
import { Shell } from "./app/shell";
import { cssVariablesResolver, theme } from "./app/theme";

createRoot(document.getElementById("console")!).render(
  <MantineProvider
    theme={theme}
    cssVariablesResolver={cssVariablesResolver}
    defaultColorScheme="auto"
  >
    <Notifications position="bottom-right" />
    <SessionProvider>
      <ModalsProvider>
        <Router hook={useEncodedHashLocation}>
          <Shell>
            <Routes />
          </Shell>
        </Router>
      </ModalsProvider>
    </SessionProvider>
  </MantineProvider>,
);
