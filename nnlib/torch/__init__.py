"""Models whose modules are torch's: all of the product that imports torch.

Nothing below this room imports it: `nnlib.config.kinds.MODELS` names the model, the model names its learner. torch's
threads follow ``runtime.blas_threads`` from the moment this package is imported.
"""

import torch

from nnlib.core.numerics import follow_blas_threads

follow_blas_threads(torch.get_num_threads, torch.set_num_threads)
