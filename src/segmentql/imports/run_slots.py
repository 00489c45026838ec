"""Limits of concurrent runs of one kind in one process.

An import works for minutes, and all jobs share the threads of a worker. Without a limit, a few
imports would delay the expiry of memberships and the stages of rollouts.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from segmentql.adapters.jobs import Message

SHARE: Final = 4
"""One of this number of threads may run one kind of work. There are three kinds."""


class RunSlots:
    """Slots for runs on one event loop. A message without a slot does not wait on its thread.

    The slots keep such messages, each once, and publish the first of them when a run ends. If the
    process ends before, the scheduler finds their work.
    """

    def __init__(self, worker_threads: int, publish: Callable[[Sequence[Message]], None]) -> None:
        """Make the slots.

        Args:
            worker_threads: The number of threads of the worker, from 1.
            publish: Sends messages.
        """
        self._free = max(1, worker_threads // SHARE)
        self._publish = publish
        self._waiting: dict[Message, None] = {}

    @contextmanager
    def take(self, message: Message) -> Iterator[bool]:
        """Take a slot for the run of a message; yield whether one was free.

        The run ends with the context. If no slot is free, the message is published later.
        """
        if not self._free:
            self._waiting[message] = None
            yield False
            return
        self._free -= 1
        self._waiting.pop(message, None)
        try:
            yield True
        finally:
            self._free += 1
            for waiting in [*self._waiting][:1]:
                del self._waiting[waiting]
                self._publish([waiting])
