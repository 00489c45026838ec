"""Trusted documents: texts that clients name by their ids.

- `service.py`: stores documents and reads their texts.
- `manifests.py`: the documents of the manifests of GraphQL Code Generator, Apollo and Relay.
- `loaders.py`: batched reads, and the cache of texts in a process.

The GraphQL kit reads the id from the request and executes the document
(`graphql/execution/request_documents.py`).
"""
