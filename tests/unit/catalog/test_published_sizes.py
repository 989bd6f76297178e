"""Parameter counts of the catalog's architectures against those that papers and reference implementations give."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from epochal.catalog.build import build_model
from epochal.catalog.data import DataInfo, Field
from epochal.spec.section import Component

IMAGENET = DataInfo(Field((3, 224, 224)), Field((), torch.int64, 1000))


def tokens(vocabulary: int, length: int, target: Field | None = None) -> DataInfo:
    return DataInfo(Field((length,), torch.int64, vocabulary), target or Field((length,), torch.int64, vocabulary))


GPT2, LLAMA2, LLAMA3 = tokens(50257, 1024), tokens(32000, 16), tokens(128256, 16)
BERT = tokens(30522, 512, Field((), torch.int64, 2))

TORCHVISION = "https://docs.pytorch.org/vision/stable/models.html"
TIMM = "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"
HUB = "https://huggingface.co/"
TURC = "https://github.com/google-research/bert"

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


@pytest.mark.parametrize(
    ("name", "params", "info", "count", "source"),
    SIZES,
    ids=[f"{one[0]}-{next(iter(one[1].values()))}" for one in SIZES],
)
def test_the_count_is_the_published_one(
    name: str, params: dict[str, Any], info: DataInfo, count: int, source: str
) -> None:
    with torch.device("meta"):
        model = build_model(Component(name=name, params=params), info)
    own = sum(one.numel() for part, one in model.named_parameters() if not part.startswith("classifier."))
    assert own == count, source
