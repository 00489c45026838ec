import { type CSSVariablesResolver, createTheme, Modal, Notification } from "@mantine/core";

export const theme = createTheme({
    primaryColor: "teal",
    primaryShade: 9,
    autoContrast: true,
    defaultRadius: "md",
    cursorType: "pointer",
    fontFamily: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif",
    fontFamilyMonospace: "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace",
    headings: { fontWeight: "650" },
    components: {
        Modal: Modal.extend({ defaultProps: { closeButtonProps: { "aria-label": "Close" } } }),
        Notification: Notification.extend({
            defaultProps: { closeButtonProps: { "aria-label": "Close" } },
        }),
    },
});

/** Darker texts than Mantine's, whose contrast is lower than WCAG AA requires. */
export const cssVariablesResolver: CSSVariablesResolver = ({ colors }) => ({
    // Buttons get darker under the pointer. Mantine's darkest shade would get lighter.
    variables: Object.fromEntries(
        Object.entries(colors).map(([name, shades]) => [
            `--mantine-color-${name}-filled-hover`,
            `color-mix(in srgb, ${shades[9]}, black 15%)`,
        ]),
    ),
    light: {
        "--mantine-color-dimmed": colors.gray[7],
        "--mantine-color-placeholder": colors.gray[7],
        "--mantine-color-error": colors.red[9],
        // The texts of light and subtle variants, such as alerts.
        ...Object.fromEntries(
            Object.entries(colors).map(([name, shades]) => [
                `--mantine-color-${name}-light-color`,
                `color-mix(in srgb, ${shades[9]}, black 30%)`,
            ]),
        ),
    },
    dark: {
        "--mantine-color-dimmed": colors.dark[1],
        "--mantine-color-placeholder": colors.dark[1],
        "--mantine-color-error": colors.red[4],
    },
});
