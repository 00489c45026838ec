"""The GraphQL kit: execution, batching, pages, errors, scalars. Knows no feature."""
