"""The GraphQL kit, which turns an HTTP request into SQL statements. It knows no feature.

A request to `/graphql` passes through these files:

1. `http/http_view.py` sets the request id. `http/view.py` negotiates the media type
   (`http/media_types.py`), rejects the request if the process has too many, authenticates the API
   key and checks its rate limit (`http/authentication.py`). A browser gets the GraphiQL page
   (`adapters/pages.py`).
2. `cost/deadlines.py` starts the time limit. `http/request_parsing.py` reads the body or the query
   string. A request that is rejected up to here gets an HTTP error (`http/http_errors.py`).
3. `execution/executor.py` executes the request. It gets the document from
   `execution/document_cache.py`. The first time, the document is
   - parsed and checked against the limits (`cost/document_limits.py`), before validation,
   - validated (`execution/error_locations.py` adds the argument and what it
     allows to the errors),
   - compiled to a plan for each operation (`execution/compiler.py`, which uses
     `execution/field_collection.py`, `execution/field_writers.py` and
     `execution/input_coercion.py`),
   - compiled to a cost (`cost/query_cost.py`, from the declarations of `cost/field_cost.py`).
   Limits, cost and compiler walk the fields with `selections.py`.
4. The executor evaluates the cost for the variables and rejects the request beyond the limit. One
   expensive query runs at a time.
5. `execution/plans.py` runs the plan. Resolvers of the features get the `Context` of `context.py`.
   They check arguments with `types/validation.py`, parse pages with `types/pagination.py`, and load
   values with a loader. If the plan fails, graphql-core executes the operation again and reports
   the errors, except if the response is too large.
6. `types/dataloader.py` collects the keys of all requests in one iteration of the event loop. A
   feature's `loaders.py` reads them with one SQL statement. Long work yields to the event loop
   (`cost/scheduling.py`).
7. `types/errors.py` formats the errors, and `types/error_causes.py` notes their cause for the log.
   `execution/response_size.py` counts the bytes while the response is built, and
   `execution/operation_metrics.py` counts the operation.
8. `http/response_sender.py` serializes the response, sends it in chunks, and closes the connection
   of a client that does not read it.

A mutation differs in these steps:

- GET cannot execute it. It always uses the primary database.
- `MutationGate` of `cost/scheduling.py` starts one mutation per iteration of the event loop.
- Among mutations, only those with one root field have a plan. If the plan fails after the resolver
  was called, graphql-core gets the resolver's result (`MutationResult`), so the mutation never runs
  twice.
- The role is checked before the resolver is called (`types/permissions.py`). The resolver validates
  the whole input (`InputValidator`), and opens one transaction for one call of the feature's
  service (`types/mutations.py`).
- A rejected mutation returns the `errors` of its payload (`mutation_errors` in `types/errors.py`).
- With `waitSeconds`, the resolver waits with a `Poller` (`types/polling.py`), and the deadline is
  paused.

The endpoint of OFREP (`ofrep/endpoint.py`) also uses `http/http_view.py`, `http/authentication.py`,
`http/request_limits.py`, `http/request_parsing.py`, `http/responses.py` and
`http/response_sender.py`.

`types/scalars.py` defines the scalars. `breaking_changes.py` compares the schema with a release.
"""
