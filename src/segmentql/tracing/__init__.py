"""Tracing by OpenTelemetry: the names of all spans, and the modules that record them.

It is on if the `OTEL_*` variables name a collector, see `docs/operations/tracing.md`. OpenTelemetry
is imported only then. A span is one of these:

- a request: `query <operation name>` or `mutation <operation name>`, else `<method> <route>`
- a statement of a request or a job: `SELECT <loader>` for the batch of a loader, else `SELECT`
- a run of a job: `process <job>`
- a call to the object store: `S3.<operation>`

No span has values of requests, users or rows. The text of statements has parameters, not values.
Only requests and jobs start traces, so periodic checks, polls and refreshes of caches have no
spans.

`setup` starts and stops the tracer, `active` has the spans of requests and jobs, and `calls` those
of statements and of calls to the object store.
"""
