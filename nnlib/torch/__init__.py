"""Models whose modules are torch's: all of the product that imports torch.

Nothing below this room imports it: `nnlib.config.kinds.MODELS` names the model, the model names its learner. torch's
threads follow ``runtime.blas_threads`` from the moment this package is imported, and a process that has used a device
of torch's does not fork any more.
"""

import torch

from nnlib.core.forks import check_before_fork
from nnlib.core.numerics import follow_blas_threads
from nnlib.torch.devices import used_kinds

follow_blas_threads(torch.get_num_threads, torch.set_num_threads)
check_before_fork(used_kinds)
