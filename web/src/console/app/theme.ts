import { createTheme } from "@mantine/core";

export const theme = createTheme({
    primaryColor: "teal",
    primaryShade: { light: 9, dark: 8 },
    autoContrast: true,
    defaultRadius: "md",
    cursorType: "pointer",
    fontFamily: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif",
    fontFamilyMonospace: "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace",
    headings: { fontWeight: "650" },
});
