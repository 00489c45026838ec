export const UNIT_SECONDS = {
  seconds: 1,
  minutes: 60,
  hours: 3_600,
  days: 86_400,
  weeks: 604_800,
} as const;

export type Unit = keyof typeof UNIT_SECONDS;

export const UNITS = Object.keys(UNIT_SECONDS);

/** Whether the value of a number input is above 0. An incomplete one, such as "-", is not. */
export function isPositiveNumber(value: number | string): boolean {
  return value !== "" && Number.isFinite(Number(value)) && Number(value) > 0;
}
