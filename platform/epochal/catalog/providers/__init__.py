"""Models of other libraries by name: ``torchvision/resnet18``. Each library is an extra that a user may install.

To add one: a file here with ``build(name, params, info)``, a line in this table, and an extra in ``pyproject.toml``.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from epochal.errors import EpochalError, NotFoundError
from epochal.registry import resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from epochal.catalog.data import DataInfo

    Build = Callable[[str, dict[str, Any], DataInfo], nn.Module]


@dataclass(frozen=True)
class Provider:
    """A library: its ``module``, what stands after its name (``what``), and what it gives."""

    module: str
    what: str
    summary: str
    source: str


PROVIDERS: Mapping[str, Provider] = {
    "keras": Provider(
        "keras",
        "MODULE:FUNCTION",
        "Your own function that makes a Keras model, on Keras' torch backend",
        "https://keras.io/api/models/",
    ),
    "pyg": Provider(
        "torch_geometric",
        "NAME",
        "The graph networks of PyTorch Geometric: GCN, GraphSAGE, GAT, GIN, PNA, EdgeCNN",
        "https://pytorch-geometric.readthedocs.io/en/latest/modules/nn.html#models",
    ),
    "timm": Provider(
        "timm",
        "NAME",
        "The image models of timm, with new weights",
        "https://huggingface.co/docs/timm/reference/models",
    ),
    "torchvision": Provider(
        "torchvision",
        "NAME",
        "The classification and segmentation models of torchvision, with new weights",
        "https://docs.pytorch.org/vision/stable/models.html",
    ),
    "transformers": Provider(
        "transformers",
        "TYPE",
        "The models of transformers by their type (bert, gpt2, vit), with new weights or those of a local folder",
        "https://huggingface.co/docs/transformers/model_doc/auto",
    ),
}


def is_provided(name: str) -> bool:
    """Whether the name of a model is one of a library: ``torchvision/resnet18``."""
    return "/" in name


def provider(name: str) -> Provider:
    """That of a model's whole name.

    Raises:
        NotFoundError: there is no such library.
    """
    library, _, model = name.partition("/")
    found = PROVIDERS.get(library)
    if found is None or not model:
        known = tuple(f"{one}/{each.what}" for one, each in PROVIDERS.items())
        raise NotFoundError("architecture", name, known)
    return found


def absent(name: str) -> str:
    """What to type where the library of the model is not installed; nothing where it is.

    Raises:
        NotFoundError: there is no such library.
    """
    installed = find_spec(provider(name).module) is not None
    return "" if installed else f"pip install 'epochal[{name.partition('/')[0]}]'"


def build(name: str, params: Mapping[str, Any], info: DataInfo) -> nn.Module:
    """The model, with what ``info`` says of its inputs and outputs beside the ``params`` given.

    Raises:
        NotFoundError: there is no such library, or it has no such model.
        EpochalError: it is not installed, or the model cannot be made so.
    """
    library, _, model = name.partition("/")
    if hint := absent(name):
        raise EpochalError(f"{name} needs {provider(name).module}, which is not installed here", hint)
    make = cast("Build", resolve(f"epochal.catalog.providers.from_{library}:build"))
    try:
        return make(model, dict(params), info)
    except (EpochalError, NotFoundError):
        raise
    except Exception as error:  # whatever the library finds wrong with its parameters
        raise EpochalError(f"{name} cannot be made: {type(error).__name__}: {error}") from error
