"""Batches as large as the memory of a device allows."""

from collections.abc import Callable

import torch
from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error
from torch import Tensor


class HalvedBatches:
    """A function of batches that is called with halves of them where the memory does not hold what it needs for all.

    Once they were too large, later batches are computed in as small parts too.

    Args:
        compute: From tensors [B, ...] to one tensor [B, ...], whose rows do not depend on each other.
    """

    def __init__(self, compute: Callable[..., Tensor]) -> None:
        self.compute = compute
        self._most: int | None = None

    def __call__(self, *batch: Tensor) -> Tensor:
        """Compute a batch.

        Raises:
            RuntimeError: The memory does not hold what a single row needs, or there is another mistake.
        """
        parts: list[Tensor] = []
        start, number = 0, len(batch[0])
        while start < number:
            size = min(self._most or number, number - start)
            try:
                parts.append(self.compute(*(rows[start : start + size] for rows in batch)))
                start += size
                continue
            except RuntimeError as error:
                if size == 1 or not (isinstance(error, torch.OutOfMemoryError) or is_oom_error(error)):
                    raise
            # Not in the clause above, where the error still holds what the function had made.
            garbage_collection_cuda()
            self._most = size // 2
        return parts[0] if len(parts) == 1 else torch.cat(parts)
