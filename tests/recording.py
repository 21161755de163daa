"""What a CUDA graph does, on the CPU: operators are recorded once and repeated on the same memory.

A replay runs no Python of the network, so whatever it would not notice on a GPU (a new prompt, a
number that the host read) shows here.
"""

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Recording(TorchDispatchMode):
    """Every operator with its arguments and results, in order."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    def replay(self):
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            for kept, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if kept.data_ptr() != new.data_ptr():  # neither a view nor changed in place
                    kept.copy_(new)


def record(run):
    with Recording() as recording:
        outputs = run()
    for output in outputs:
        output.fill_(float("nan"))  # CUDA computes nothing while it records
    return outputs, recording.replay
