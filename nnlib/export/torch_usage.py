"""The lines of Python that build a torch module from an exported file, for its card."""

from __future__ import annotations

from collections.abc import Sequence

from nnlib.export.torch_network import TorchNetwork
from nnlib.torch.factories import ZOO

LAST_LINES = {
    "softmax": "    probabilities = torch.softmax(z, dim=1)",
    "sigmoid": "    probabilities = torch.sigmoid(z)",
    "linear": "    prediction = z[:, 0]",
}


def usage_lines(network: TorchNetwork, imports: Sequence[str], load: Sequence[str], description: str) -> str:
    """Lines that build the module ``net``, ``load`` its numbers, and compute.

    ``x`` holds feature values (rows, features). ``description``: an expression for the file's description, as text.
    """
    module, _, function = ZOO.get(network.factory, network.factory).partition(":")
    shape = f"({', '.join(map(str, network.shape))}{',' if len(network.shape) == 1 else ''})"
    precision = ".double()" if str(network.dtype) == "float64" else ""
    lines = [
        *imports,
        f"from {module} import {function}",
        f"net = {function}(**{dict(network.arguments)!r}, shape={shape}, outputs={network.outputs}){precision}.eval()",
        *load,
        f"x = torch.as_tensor(x, dtype=torch.{network.scaling_dtype})",
    ]
    if network.scaling is not None:
        lines += [
            f'scaling = json.loads({description})["scaling"]',
            f'shift = torch.tensor(scaling["shift"], dtype=torch.{network.scaling_dtype})',
            f'x = (x - shift) * torch.tensor(scaling["factor"], dtype=torch.{network.scaling_dtype})',
        ]
    if network.scaling_dtype != network.dtype:
        lines.append(f"x = x.to(torch.{network.dtype})")
    lines += [
        "with torch.no_grad():",
        f"    z = net(x.reshape(-1, {', '.join(map(str, network.shape))}))",
        LAST_LINES[network.output],
    ]
    if network.target is not None:
        lines.append(f"prediction = prediction.double() * {network.target.spread!r} + {network.target.shift!r}")
    return "\n".join(lines)
