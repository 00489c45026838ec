import {
  type CSSVariablesResolver,
  createTheme,
  Modal,
  Notification,
  NumberInput,
} from "@mantine/core";

import { DECIMAL_SEPARATOR } from "../format";

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
    NumberInput: NumberInput.extend({
      defaultProps: {
        decimalSeparator: DECIMAL_SEPARATOR,
        allowedDecimalSeparators: [".", ","],
      },
    }),
    Notification: Notification.extend({
      defaultProps: { closeButtonProps: { "aria-label": "Close" } },
    }),
  },
});

/** Darker colors than Mantine's, whose contrast is lower than WCAG AA requires. */
export const cssVariablesResolver: CSSVariablesResolver = ({ colors }) => {
  const ofColors = (suffix: string, blackPercent: number) =>
    Object.fromEntries(
      Object.entries(colors).map(([name, shades]) => [
        `--mantine-color-${name}-${suffix}`,
        `color-mix(in srgb, ${shades[9]}, black ${blackPercent}%)`,
      ]),
    );
  return {
    variables: {},
    light: {
      "--mantine-color-dimmed": colors.gray[7],
      "--mantine-color-placeholder": colors.gray[7],
      "--mantine-color-error": colors.red[9],
      // The texts of light and subtle variants, such as alerts.
      ...ofColors("light-color", 30),
      ...ofColors("filled-hover", 15),
    },
    dark: {
      "--mantine-color-dimmed": colors.dark[1],
      "--mantine-color-placeholder": colors.dark[1],
      "--mantine-color-error": colors.red[4],
      ...ofColors("filled-hover", 15),
    },
  };
};
