// The types of our dashboards: Grafana's own, narrowed to panels of the type timeseries. In JSON an
// enum is the text or the number of its member.
import type { Dashboard, DataQuery, DataSourceRef, FieldConfig, Panel } from "@grafana/schema";
import type {
  FieldConfig as TimeSeriesField,
  Options as TimeSeriesOptions,
} from "@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen.d.ts";

type Json<T> = T extends string
  ? `${T}`
  : T extends number
    ? `${T}` extends `${infer N extends number}`
      ? N
      : never
    : T extends (infer Item)[]
      ? Json<Item>[]
      : T extends object
        ? { [Key in keyof T]: Json<T[Key]> }
        : T;

// The package has no type for queries of Prometheus; these are the fields that we use.
type PrometheusQuery = DataQuery & { expr: string; legendFormat: string; datasource: DataSourceRef };

type TimeSeriesPanel = Omit<Panel, "type" | "options" | "fieldConfig" | "targets"> & {
  type: "timeseries";
  options: TimeSeriesOptions;
  fieldConfig: {
    defaults: Omit<FieldConfig, "custom"> & { custom?: TimeSeriesField };
    overrides: never[];
  };
  targets: PrometheusQuery[];
};

export type OurDashboard = Json<Omit<Dashboard, "panels"> & { panels: TimeSeriesPanel[] }>;
