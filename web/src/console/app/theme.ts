import { type CSSVariablesResolver, createTheme } from "@mantine/core";

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

/** Darker secondary texts than Mantine's, whose contrast is lower than WCAG AA requires. */
export const cssVariablesResolver: CSSVariablesResolver = ({ colors }) => ({
    variables: {},
    light: {
        "--mantine-color-dimmed": colors.gray[7],
        "--mantine-color-placeholder": colors.gray[7],
        "--mantine-color-error": colors.red[9],
    },
    dark: {
        "--mantine-color-dimmed": colors.dark[1],
        "--mantine-color-placeholder": colors.dark[1],
        "--mantine-color-error": colors.red[4],
    },
});
