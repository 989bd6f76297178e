"""Models of the catalog give what those of the transformers library give with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from epochal.catalog.build import build_model
from epochal.catalog.data import DataInfo, Field
from epochal.spec.section import Component

transformers = pytest.importorskip("transformers", reason="needs transformers: pip install transformers")

TOKENS = DataInfo(Field((16,), torch.int64, 65), Field((16,), torch.int64, 65))
SENTENCES = DataInfo(Field((12,), torch.int64, 50), Field((), torch.int64, 5))
IMAGES = DataInfo(Field((3, 32, 32)), Field((), torch.int64, 10))


def ours(name: str, info: DataInfo, weights: dict[str, Tensor], **params: Any) -> nn.Module:
    model = build_model(Component(name=name, params=params), info)
    model.load_state_dict(weights, strict=True)
    return model.eval()


def renamed(weights: dict[str, Tensor], names: dict[str, str], left_out: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """With each of ``names`` replaced in every name."""
    found = {}
    for name, value in weights.items():
        if not any(part in name for part in left_out):
            own = name
            for old, new in names.items():
                own = own.replace(old, new)
            found[own] = value
    return found


def assert_same(model: nn.Module, theirs: nn.Module, example: Tensor) -> None:
    with torch.no_grad():
        expected = theirs.eval()(example).logits
        found = model(example)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-4


def test_gpt() -> None:
    config = transformers.GPT2Config(vocab_size=65, n_positions=16, n_embd=48, n_layer=3, n_head=3)
    theirs = transformers.GPT2LMHeadModel(config)
    weights = renamed(theirs.state_dict(), {"transformer.": ""}, ("lm_head", ".attn.bias", "masked_bias"))
    assert_same(ours("gpt", TOKENS, weights), theirs, TOKENS.example(3)["input"])


def test_llama() -> None:
    config = transformers.LlamaConfig(
        vocab_size=65, hidden_size=48, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, rms_norm_eps=1e-5, tie_word_embeddings=False,
    )  # fmt: skip
    theirs = transformers.LlamaForCausalLM(config)
    assert_same(ours("llama", TOKENS, theirs.state_dict()), theirs, TOKENS.example(3)["input"])


def test_bert() -> None:
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512, num_labels=5
    )
    theirs = transformers.BertForSequenceClassification(config)
    weights = renamed(theirs.state_dict(), {}, ("position_ids",))
    assert_same(ours("bert", SENTENCES, weights), theirs, SENTENCES.example(3)["input"])


def test_bert_with_padding() -> None:
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512, num_labels=5
    )
    theirs = transformers.BertForSequenceClassification(config).eval()
    tokens = SENTENCES.example(3)["input"].clamp(min=1)
    tokens[1, 7:] = 0
    model = ours("bert", SENTENCES, renamed(theirs.state_dict(), {}, ("position_ids",)), padding=0)
    with torch.no_grad():
        expected = theirs(tokens, attention_mask=(tokens != 0).long()).logits
        assert (model(tokens) - expected).abs().max() <= 1e-4


def test_vit() -> None:
    config = transformers.ViTConfig(
        hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=256, image_size=32, patch_size=8,
        num_channels=3, num_labels=10, layer_norm_eps=1e-6,
    )  # fmt: skip
    theirs = transformers.ViTForImageClassification(config)
    names = {
        "vit.embeddings.cls_token": "cls_token", "vit.embeddings.position_embeddings": "pos_embed",
        "vit.embeddings.patch_embeddings.projection": "patch_embed.proj", "vit.layers.": "blocks.",
        "attention.o_proj": "attn.proj", "layernorm_before": "norm1", "layernorm_after": "norm2",
        "vit.layernorm": "norm", "classifier": "head",
    }  # fmt: skip
    weights = renamed(theirs.state_dict(), names)
    for block in range(4):
        for kind in ("weight", "bias"):
            attention = f"blocks.{block}.attention"
            parts = [weights.pop(f"{attention}.{one}_proj.{kind}") for one in "qkv"]
            weights[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat(parts)
    assert_same(ours("vit", IMAGES, weights), theirs, IMAGES.example(3)["input"])


@pytest.mark.parametrize("depth", [18, 50])
def test_resnet(depth: int) -> None:
    kinds = {18: ("basic", [2, 2, 2, 2], 64), 50: ("bottleneck", [3, 4, 6, 3], 256)}
    kind, depths, width = kinds[depth]
    config = transformers.ResNetConfig(
        embedding_size=64, hidden_sizes=[width * 2**stage for stage in range(4)], depths=depths, layer_type=kind,
        num_labels=10,
    )  # fmt: skip
    theirs = transformers.ResNetForImageClassification(config)
    names = {
        "resnet.embedder.embedder.convolution": "conv1", "resnet.embedder.embedder.normalization": "bn1",
        **{f"resnet.encoder.stages.{stage}.layers.": f"layer{stage + 1}." for stage in range(4)},
        **{f"layer.{place}.convolution": f"conv{place + 1}" for place in range(3)},
        **{f"layer.{place}.normalization": f"bn{place + 1}" for place in range(3)},
        "shortcut.convolution": "downsample.0", "shortcut.normalization": "downsample.1", "classifier.1": "fc",
    }  # fmt: skip
    model = ours("resnet", IMAGES, renamed(theirs.state_dict(), names), depth=depth, stem="imagenet")
    assert_same(model, theirs, IMAGES.example(3)["input"])
