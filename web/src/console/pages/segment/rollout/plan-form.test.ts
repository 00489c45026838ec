import { expect, test } from "vitest";

import {
  describePlan,
  newStage,
  type PlanForm,
  toPlanForm,
  toContinuation,
  toDelay,
  toField,
  toRolloutInput,
  validatePlan,
} from "./plan-form";
import type { Rollout, Stage } from "./rollout-state";

const NOW = Date.parse("2026-03-10T12:00:00Z");

function rollout(stages: Stage[], fields: Partial<Rollout> = {}): Rollout {
  return {
    id: "rol_1",
    status: "WAITING",
    percent: 5,
    enrollNewUsers: false,
    expiresAt: null,
    stages,
    usersTotal: 0,
    usersSeen: 0,
    progress: 0,
    startedAt: null,
    finishedAt: null,
    failure: null,
    ...fields,
  };
}

const DONE: Stage = { percent: 5, startsAt: "2026-03-10T10:00:00Z", status: "DONE" };
const PENDING: Stage = { percent: 50, startsAt: "2026-03-11T10:00:00Z", status: "PENDING" };

test("toPlanForm begins with one percent if there is no rollout", () => {
  expect(toPlanForm(null, NOW)).toMatchObject({ kind: "percent", percent: "", expiresAt: "" });
});

test("toPlanForm keeps the stage in force and the stages that have not started", () => {
  const first: Stage = { percent: 1, startsAt: "2026-03-09T10:00:00Z", status: "DONE" };
  const form = toPlanForm(rollout([first, DONE, PENDING]), NOW);
  expect(form.kind).toBe("stages");
  expect(form.enrollNewUsers).toBe(false);
  expect(form.stages).toMatchObject([
    { percent: 5, start: "NOW" },
    { percent: 50, start: "AT", startsAt: PENDING.startsAt },
  ]);
});

test("toPlanForm keeps the delay of a stage that a pause delayed into the past", () => {
  const late: Stage = { ...PENDING, startsAt: "2026-03-10T11:30:00Z" };
  const form = toPlanForm(rollout([DONE, late], { status: "PAUSED" }), NOW);
  expect(form.stages[1]).toMatchObject({ start: "AFTER", after: 90, unit: "minutes" });
});

test("toPlanForm drops an end that has passed", () => {
  const form = toPlanForm(rollout([DONE], { expiresAt: "2026-03-10T11:00:00Z" }), NOW);
  expect(form).toMatchObject({ kind: "percent", percent: 5, expiresAt: "" });
});

test("toDelay uses the largest exact unit", () => {
  expect(toDelay(172_800)).toEqual({ after: 2, unit: "days" });
  expect(toDelay(5_400)).toEqual({ after: 90, unit: "minutes" });
  expect(toDelay(61)).toEqual({ after: 61, unit: "seconds" });
});

const STAGED: PlanForm = {
  kind: "stages",
  percent: "",
  stages: [
    { ...newStage(), percent: 5, start: "NOW" },
    { ...newStage(), percent: 12.5, after: 1.5, unit: "hours" },
    { ...newStage(), percent: 100, start: "AT", startsAt: "2026-04-01T00:00:00.000Z" },
  ],
  enrollNewUsers: true,
  expiresAt: "",
};

test("toRolloutInput sends either one percent or stages", () => {
  expect(toRolloutInput({ ...STAGED, kind: "percent", percent: 7 })).toEqual({
    percent: 7,
    enrollNewUsers: true,
    expiresAt: null,
  });
  expect(toRolloutInput(STAGED)).toEqual({
    stages: [
      { percent: 5, startsAt: null, afterSeconds: null },
      { percent: 12.5, startsAt: null, afterSeconds: 5_400 },
      { percent: 100, startsAt: "2026-04-01T00:00:00.000Z", afterSeconds: null },
    ],
    enrollNewUsers: true,
    expiresAt: null,
  });
});

test("describePlan names each stage and its start", () => {
  expect(describePlan(STAGED).slice(0, 2)).toEqual([
    "Stage 1: 5% of all users, now.",
    "Stage 2: 12.5% of all users, 1.5 hours after stage 1.",
  ]);
});

test("validatePlan finds empty fields of the shown kind only", () => {
  expect(validatePlan(STAGED)).toEqual({});
  expect(validatePlan({ ...STAGED, kind: "percent" })).toEqual({
    percent: "Enter a percentage.",
  });
  expect(validatePlan({ ...STAGED, kind: "percent", percent: "-" })).toHaveProperty("percent");
  const stage = { ...newStage(), start: "AT" as const };
  expect(validatePlan({ ...STAGED, stages: [stage] })).toEqual({
    "stages.0.percent": "Enter a percentage.",
    "stages.0.startsAt": "Enter a time.",
  });
});

test("a delay is a GraphQL Int, so that the server can reject it at its field", () => {
  const stage = { ...newStage(), percent: 1, after: 1e9 };
  expect(toRolloutInput({ ...STAGED, stages: [stage] }).stages).toMatchObject([
    { afterSeconds: 2_147_483_647 },
  ]);
});

test("toContinuation starts with the first stage that is not done", () => {
  const active: Stage = { ...DONE, status: "ACTIVE" };
  expect(toContinuation(rollout([active, PENDING])).stages).toEqual([
    { percent: 5, afterSeconds: 0 },
    { percent: 50, afterSeconds: 60 },
  ]);
  expect(toContinuation(rollout([DONE, PENDING])).stages).toEqual([
    { percent: 50, afterSeconds: 0 },
  ]);
  expect(toContinuation(rollout([DONE])).stages).toEqual([{ percent: 5, afterSeconds: 0 }]);
  expect(toContinuation(rollout([PENDING])).stages).toEqual([{ percent: 50, afterSeconds: 60 }]);
});

test("toField maps paths of the input to fields of the form", () => {
  expect(toField(["rollout", "percent"])).toBe("percent");
  expect(toField(["rollout", "expiresAt"])).toBe("expiresAt");
  expect(toField(["rollout", "stages", "1", "percent"])).toBe("stages.1.percent");
  expect(toField(["rollout", "stages", "1", "afterSeconds"])).toBe("stages.1.after");
  expect(toField(["rollout", "stages", "1"])).toBe("stages.1.percent");
});
