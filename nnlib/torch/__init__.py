"""Models whose modules are torch's: all of the product that imports torch.

Nothing below this room imports it: `nnlib.config.kinds.MODELS` names the model, the model names its learner.
"""
