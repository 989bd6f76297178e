"""Parameter counts of the catalog's architectures against those that papers and reference implementations give."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from epochal.catalog.architectures.gnn import INPUTS, graph_fields
from epochal.catalog.architectures.seq2seq import SIZES as SEQ2SEQ
from epochal.catalog.build import build_model
from epochal.catalog.data import DataInfo, Field
from epochal.spec.section import Component

IMAGENET = DataInfo(Field((3, 224, 224)), Field((), torch.int64, 1000))


def tokens(vocabulary: int, length: int, target: Field | None = None) -> DataInfo:
    return DataInfo(Field((length,), torch.int64, vocabulary), target or Field((length,), torch.int64, vocabulary))


GPT2, LLAMA2, LLAMA3 = tokens(50257, 1024), tokens(32000, 16), tokens(128256, 16)
BERT = tokens(30522, 512, Field((), torch.int64, 2))

CORA = DataInfo(Field((4, 1433)), Field((4,), torch.int64, 7), graph_fields(4), INPUTS)

TORCHVISION = "https://docs.pytorch.org/vision/stable/models.html"
TIMM = "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"
HUB = "https://huggingface.co/"
TURC = "https://github.com/google-research/bert"

ATARI = DataInfo(Field((4, 84, 84)), Field((), torch.int64, 4))
FACES = DataInfo(Field((3, 64, 64)), Field(()))
DDPM = "https://arxiv.org/abs/2006.11239, appendix B"
DCGAN = "https://docs.pytorch.org/tutorials/beginner/dcgan_faces_tutorial.html"

SIZES: list[tuple[str, dict[str, Any], DataInfo, int, str]] = [
    ("resnet", {"depth": 18}, IMAGENET, 11_689_512, TORCHVISION),
    ("resnet", {"depth": 34}, IMAGENET, 21_797_672, TORCHVISION),
    ("resnet", {"depth": 50}, IMAGENET, 25_557_032, TORCHVISION),
    ("resnet", {"depth": 101}, IMAGENET, 44_549_160, TORCHVISION),
    ("resnet", {"depth": 152}, IMAGENET, 60_192_808, TORCHVISION),
    ("vit", {"size": "tiny"}, IMAGENET, 5_717_416, TIMM),
    ("vit", {"size": "small"}, IMAGENET, 22_050_664, TIMM),
    ("vit", {"size": "base"}, IMAGENET, 86_567_656, TORCHVISION),
    ("vit", {"size": "large"}, IMAGENET, 304_326_632, TORCHVISION),
    ("gpt", {"size": "small"}, GPT2, 124_439_808, f"{HUB}openai-community/gpt2"),
    ("gpt", {"size": "medium"}, GPT2, 354_823_168, f"{HUB}openai-community/gpt2-medium"),
    ("gpt", {"size": "large"}, GPT2, 774_030_080, f"{HUB}openai-community/gpt2-large"),
    ("gpt", {"size": "xl"}, GPT2, 1_557_611_200, f"{HUB}openai-community/gpt2-xl"),
    ("llama", {"size": "1.1b"}, LLAMA2, 1_100_048_384, f"{HUB}TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
    ("llama", {"size": "7b"}, LLAMA2, 6_738_415_616, f"{HUB}meta-llama/Llama-2-7b-hf"),
    ("llama", {"size": "13b"}, LLAMA2, 13_015_864_320, f"{HUB}meta-llama/Llama-2-13b-hf"),
    ("llama", {"size": "8b"}, LLAMA3, 8_030_261_248, f"{HUB}meta-llama/Meta-Llama-3-8B"),
    ("dqn", {}, ATARI, 1_686_180, "Mnih et al. 2015, methods: 4 frames of 84 x 84, here for 4 actions"),
    ("gnn", {"layer": "gcn"}, CORA, 23_063, "Kipf and Welling 2017, section 6: 1,433 features, 16 hidden, 7 classes"),
    (
        "gnn",
        {"layer": "gat", "hidden": 8},
        CORA,
        92_373,
        "https://github.com/pyg-team/pytorch_geometric examples/gat.py",
    ),
    ("bert", {"size": "tiny"}, BERT, 4_385_920, f"{TURC} (4.4 million)"),
    ("bert", {"size": "base"}, BERT, 109_482_240, f"{HUB}google-bert/bert-base-uncased"),
    ("bert", {"size": "large"}, BERT, 335_141_888, f"{HUB}google-bert/bert-large-uncased"),
    ("ddpm", {"channels": 128}, DataInfo(Field((3, 32, 32)), Field(())), 35_746_307, DDPM),  # "35.7 million"
    (
        "dcgan",
        {"latent": 100},
        FACES,
        3_576_704 + 2_765_568,
        DCGAN,
    ),  # generator and discriminator, as the tutorial prints them
]
"""Of BERT without its output layer, which is for the task at hand."""

LARGER = (
    "resnet-101", "resnet-152", "vit-large", "gpt-medium", "gpt-large", "gpt-xl", "llama-7b", "llama-13b", "bert-large",
)  # fmt: skip
"""More of the same blocks."""


def named(size: tuple[str, dict[str, Any], DataInfo, int, str]) -> str:
    return f"{size[0]}-{next(iter(size[1].values()), '')}"


@pytest.mark.parametrize(
    ("name", "params", "info", "count", "source"),
    [pytest.param(*one, id=named(one), marks=pytest.mark.slow if named(one) in LARGER else ()) for one in SIZES],
)
def test_the_count_is_the_published_one(
    name: str, params: dict[str, Any], info: DataInfo, count: int, source: str
) -> None:
    with torch.device("meta"):
        model = build_model(Component(name=name, params=params), info)
    own = sum(one.numel() for part, one in model.named_parameters() if not part.startswith("classifier."))
    assert own == count, source


@pytest.mark.parametrize(("size", "millions"), [("base", 65), ("big", 213)])
def test_seq2seq_has_about_the_papers_parameters_and_those_of_torchs(size: str, millions: int) -> None:
    """The paper rounds, and says no more of the vocabulary than that it has about 37,000 tokens."""
    shown = Field((8,), torch.int64, 37_000)
    more = {"decoder_input": shown, "length": Field((), torch.int64, 9)}
    info = DataInfo(shown, shown, more, ("input", "decoder_input", "length"))
    with torch.device("meta"):
        model = build_model(Component(name="seq2seq", params={"size": size, "shared": "all"}), info)
        width, layers, heads, inner = SEQ2SEQ[size]
        theirs = torch.nn.Transformer(width, heads, layers, layers, inner, batch_first=True)
    count = sum(one.numel() for one in model.parameters())
    assert count == pytest.approx(millions * 1e6, rel=0.03)
    norms = 4 * width  # torch normalises once more after the last layer of each half
    assert count == sum(one.numel() for one in theirs.parameters()) - norms + 37_000 * width
