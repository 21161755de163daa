"""Write pictures in parallel to drawing."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffgen.batch.plan import Job
    from diffgen.engine.drawing import GeneratedImage

AHEAD = 2  # batches in the queue


class Writer:
    """A thread that writes pictures while the next ones are drawn; a context manager.

    Its errors are raised by the next `put`, or at the end.
    """

    def __init__(self, write: Callable[[Job, GeneratedImage], None]) -> None:
        self._write = write
        self._queue: queue.Queue[list[tuple[Job, GeneratedImage]] | None] = queue.Queue(AHEAD)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()
        if kind is None:
            self._raise()

    def put(self, jobs: Sequence[Job], pictures: Sequence[GeneratedImage]) -> None:
        """Queue pictures for writing; blocks while the queue is full."""
        self._raise()
        self._queue.put(list(zip(jobs, pictures, strict=True)))

    def _work(self) -> None:
        while (batch := self._queue.get()) is not None:
            for job, picture in batch:
                if self._error is None:
                    try:
                        self._write(job, picture)
                    except BaseException as error:
                        self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
