"""``transformers/<type>``: a model of that type from its configuration, or from a local folder with weights.

What it is for follows from the data: token ids or images as input; a class, a value or a token a place as target.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from epochal.catalog.data import DataInfo, Field
from epochal.errors import EpochalError, NotFoundError

_NO_TOKEN = -1
"""What a decoder (gpt2) is told that padding is where there is none: it classifies a sequence by the last token that is
something else, and refuses a batch where it is told nothing."""


class Logits(nn.Module):
    """A model of transformers, of which the logits are wanted. Its weights are named with ``model.`` before them."""

    def __init__(self, model: nn.Module, takes: str, padding: int | None) -> None:
        super().__init__()
        self.model = model
        self._takes = takes
        self._padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, time) token ids, or (batch, channels, height, width); returns (batch, ..., outputs)."""
        given = {self._takes: x}
        if self._padding is not None:
            given["attention_mask"] = (x != self._padding).long()
        logits: Tensor = self.model(**given, return_dict=True).logits
        return logits


def build(name: str, params: dict[str, Any], info: DataInfo) -> nn.Module:
    """
    Raises:
        NotFoundError: transformers has no such type.
        EpochalError: it has no model of it for such data, or ``path`` holds none.
    """
    import transformers

    if name not in transformers.CONFIG_MAPPING:
        raise NotFoundError("type of transformers' models", name, tuple(transformers.CONFIG_MAPPING))
    path, padding = params.pop("path", None), params.pop("padding", None)
    kind, takes, fixed = _made_for(name, info)
    if padding is not None:
        if takes != "input_ids" or not 0 <= padding < fixed["vocab_size"]:
            raise EpochalError(f"padding: {padding} is no token id of the input", "remove it, or correct it")
        fixed |= {"pad_token_id": padding}
    if path is None:
        config = transformers.AutoConfig.for_model(name, **{**fixed, **params})
    else:
        folder = Path(path)
        if not folder.is_absolute() or not (folder / "config.json").is_file():
            raise EpochalError(
                f"path: {path} is no folder with a config.json", "give its path from / on, on every node"
            )
        kept = {key: value for key, value in fixed.items() if key not in ("vocab_size", "image_size", "num_channels")}
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, **{**kept, **params})
        if config.model_type != name:
            raise EpochalError(f"path: {path} holds a model of the type {config.model_type}, not {name}")
        if takes == "input_ids" and config.vocab_size < fixed["vocab_size"]:
            told = f"path: {path} holds a model of {config.vocab_size} tokens, and the data has {fixed['vocab_size']}"
            raise EpochalError(told, "make the data's token ids with the tokenizer of that model")
    if getattr(config, "is_encoder_decoder", False):
        raise EpochalError(f"transformers/{name} is an encoder with a decoder, which is called otherwise")
    auto = getattr(transformers, kind)
    if path is None:
        model: Any = auto.from_config(config)
    else:
        model = auto.from_pretrained(folder, config=config, local_files_only=True, ignore_mismatched_sizes=True)
    if kind.endswith("SequenceClassification") and getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = _NO_TOKEN
    return Logits(model.train(), takes, padding)


def _made_for(name: str, info: DataInfo) -> tuple[str, str, dict[str, Any]]:
    """The class of transformers, the name of its input, and what the configuration has to say.

    Raises:
        EpochalError: there is none for such data.
    """
    seen, target = info.input, info.target
    if info.inputs == ("input",) and seen.classes is not None and len(seen.shape) == 1:
        fixed: dict[str, Any] = {"vocab_size": seen.classes}
        if target.shape == ():
            return "AutoModelForSequenceClassification", "input_ids", {**fixed, "num_labels": target.width}
        if target.shape == seen.shape and target.classes == seen.classes:
            if name == "xlnet":  # it draws the order in which it predicts tokens, which is not told to it here
                told = "transformers/xlnet sees each token that it is to predict where it is called with tokens alone"
                raise EpochalError(told, "use a decoder, such as transformers/gpt2")
            # Without is_decoder each token of an encoder (bert) sees the next one, which it is to predict.
            return "AutoModelForCausalLM", "input_ids", {**fixed, "use_cache": False, "is_decoder": True}
        if target.shape == seen.shape and target.classes is not None:
            return "AutoModelForTokenClassification", "input_ids", {**fixed, "num_labels": target.classes}
    if info.inputs == ("input",) and _is_image(seen) and target.shape == ():
        channels, height, width = seen.shape
        size = height if height == width else [height, width]
        fixed = {"num_channels": channels, "image_size": size, "num_labels": target.width}
        return "AutoModelForImageClassification", "pixel_values", fixed
    told = f"transformers/{name} is not known to take an input {seen.shape} for a target {target.shape}"
    raise EpochalError(told, "token ids (time,) or images; write a class of your own around others")


def _is_image(field: Field) -> bool:
    return len(field.shape) == 3 and field.dtype.is_floating_point
