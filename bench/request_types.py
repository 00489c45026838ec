"""The kinds of requests of the load client by their names."""

from typing import Final

from bench.peer_queries import (
    ConstantOneUser,
    PostGraphileManyUsers,
    PostGraphileOneUser,
    ReferenceManyUsers,
    ReferenceOneUser,
)
from bench.queries import (
    GraphQLRequest,
    ManyUsers,
    ManyUsersByKey,
    NewUser,
    NewUserByKey,
    OneUser,
    OneUserByKey,
    OneUserInRollouts,
    ShortTtl,
    UpdateSegments,
)

REQUEST_TYPES: Final[dict[str, type[GraphQLRequest]]] = {
    kind.__name__: kind
    for kind in (
        OneUser,
        OneUserInRollouts,
        ManyUsers,
        OneUserByKey,
        ManyUsersByKey,
        UpdateSegments,
        ShortTtl,
        NewUser,
        NewUserByKey,
        ReferenceOneUser,
        ReferenceManyUsers,
        ConstantOneUser,
        PostGraphileOneUser,
        PostGraphileManyUsers,
    )
}
