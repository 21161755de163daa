"""The loss of held-out pictures: one batch in memory at a time, shared by all processes."""

from __future__ import annotations

from collections.abc import Callable

from diffgen.train.data.dataset import Batch
from diffgen.train.dist import World
from diffgen.train.targets.target import Data


def held_out_loss(
    data: Data, batch_size: int, loss: Callable[[Batch], float], world: World
) -> float | None:
    """The average of `loss` over the held-out pictures; None if not one can be decoded.

    All processes must call this and get the same number.
    """
    mine = iter(data.validation(batch_size, rank=world.rank, world=world.size))
    total, count = 0.0, 0
    while True:
        batch = next(mine, None)
        if not world.agree(int(batch is not None)):
            break
        if batch is None:
            # Sharded weights need all processes: those that have no batch left repeat one.
            loss(next(iter(data.validation(batch_size, rank=0, world=1))))
        else:
            total += loss(batch) * len(batch.indices)
            count += len(batch.indices)
    sums = world.mean({"total": total, "count": count})
    return sums["total"] / sums["count"] if sums["count"] else None
