"""A small convolutional network that reads a picture: object, colour, count, place, time, side."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from diffgen.device import multiplies_bf16, send
from diffgen.train.muon import Muon, hidden_weights
from scripts.storybook.scene import Scene, World
from scripts.storybook.shelf import Shelf
from scripts.storybook.stream import SceneStream
from scripts.storybook.words import COLOURS, POSITIONS

UNASKED = -1  # a label the scene does not fix, ignored in loss and score
BATCH = 64
Labels = dict[str, Tensor]
Batches = Iterator[tuple[Tensor, Labels]]  # pictures (B, 3, H, W) in -1 to 1, and their labels


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The answers to each question, in the order of the network's outputs."""

    objects: tuple[str, ...]
    places: tuple[str, ...]
    times: tuple[str, ...]

    @classmethod
    def of(cls, where: World) -> "Vocabulary":
        """What scenes of a world can show."""
        return cls(tuple(k.name for k in where.kinds), where.places, where.times)

    def widths(self) -> dict[str, int]:
        """The number of answers to each question."""
        return {
            "object": len(self.objects),
            "colour": len(COLOURS),
            "count": 3,
            "place": len(self.places),
            "time": len(self.times),
            "position": len(POSITIONS),
        }

    def answers(self, scene: Scene) -> dict[str, int]:
        """The right answer to each question but `object`, as an index or UNASKED."""
        group, single = scene.groups[0], not scene.relation
        colour = group.colour if single else None
        return {
            "colour": UNASKED if colour is None else list(COLOURS).index(colour),
            "count": group.count - 1 if single else 1,
            "place": self.places.index(scene.place),
            "time": self.times.index(scene.time),
            "position": (
                list(POSITIONS).index(scene.position) if single and group.count == 1 else UNASKED
            ),
        }

    def presence(self, scene: Scene) -> Tensor:
        """1 for each kind of object in the scene, (objects,) float32."""
        present = torch.zeros(len(self.objects))
        present[[self.objects.index(g.kind) for g in scene.groups]] = 1.0
        return present

    def labels(self, scenes: list[Scene]) -> Labels:
        """Presence (B, objects) and the other answers, (B,) each."""
        answers = [self.answers(scene) for scene in scenes]
        labels = {name: torch.tensor([a[name] for a in answers]) for name in answers[0]}
        return {"object": torch.stack([self.presence(s) for s in scenes]), **labels}


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Verifier(nn.Module):
    """Pictures (B, 3, H, W) in -1 to 1 to one row of logits for each question.

    What is in it is asked of pieces of it, 183 pixels wide and 32 apart, and the answers joined by
    log-sum-exp (Pinheiro and Collobert, arXiv:1411.6228), so that two things do not dilute each
    other. The rest is read off the strongest responses anywhere and a grid of 4 x 4 averages.
    """

    def __init__(self, vocabulary: Vocabulary, width: int = 32) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.trunk = nn.Sequential(
            _block(3, width // 2, 2),
            _block(width // 2, width, 2),
            _block(width, 2 * width, 1),
            _block(2 * width, 2 * width, 2),
            _block(2 * width, 4 * width, 1),
            _block(4 * width, 4 * width, 2),
            _block(4 * width, 4 * width, 1),
        )
        self.features = nn.Sequential(nn.Linear(68 * width, 384), nn.ReLU(inplace=True))
        widths = vocabulary.widths()
        things = widths.pop("object")
        self.things = nn.Sequential(
            _block(4 * width, 8 * width, 2),
            _block(8 * width, 8 * width, 1),
            nn.Conv2d(8 * width, things, 1),
        )
        self.heads = nn.ModuleDict({name: nn.Linear(384, n) for name, n in widths.items()})

    def forward(self, pictures: Tensor) -> Labels:
        responses = self.trunk(pictures)
        what = responses.amax(dim=(2, 3))
        where = F.adaptive_avg_pool2d(responses, 4).flatten(1)
        features = self.features(torch.cat([what, where], dim=1))
        things = self.things(responses).flatten(2).logsumexp(dim=2)
        return {"object": things, **{name: head(features) for name, head in self.heads.items()}}


def loss(logits: Labels, labels: Labels) -> Tensor:
    """Cross entropy of all questions; a pair of objects shares the probability equally."""
    shares = labels["object"] / labels["object"].sum(1, keepdim=True)
    total = F.cross_entropy(logits["object"], shares)
    for name in labels.keys() - {"object"}:
        if (labels[name] != UNASKED).any():
            total = total + F.cross_entropy(logits[name], labels[name], ignore_index=UNASKED)
    return total


def grade(logits: Labels, labels: Labels) -> dict[str, list[bool]]:
    """Right or wrong for each picture and question asked of it, and for all questions at once.

    As many of the likeliest objects as the scene holds must be the scene's.
    """
    right: dict[str, list[bool]] = {name: [] for name in (*logits, "all")}
    for row in range(len(labels["object"])):
        truth = labels["object"][row].nonzero().flatten()
        found = logits["object"][row].topk(len(truth)).indices.sort().values
        marks = {"object": bool((found == truth).all())}
        for name in labels.keys() - {"object"}:
            if labels[name][row] != UNASKED:
                marks[name] = bool(logits[name][row].argmax() == labels[name][row])
        for name, mark in marks.items():
            right[name].append(mark)
        right["all"].append(all(marks.values()))
    return right


class _Painted(IterableDataset[tuple[Tensor, Labels]]):
    """Scenes as they are painted; each loader process paints its share of the batches."""

    def __init__(self, stream: SceneStream, vocabulary: Vocabulary) -> None:
        self.stream, self.vocabulary = stream, vocabulary

    def __iter__(self) -> Iterator[tuple[Tensor, Labels]]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        for pixels, examples in self.stream.batches(BATCH, worker=worker, workers=workers):
            scenes = [example.scene for example in examples]
            yield _roughen(pixels), self.vocabulary.labels(scenes)


def _roughen(pixels: NDArray[np.float32]) -> Tensor:
    """Mild noise and contrast and, half the time, blur: the judge also reads what a model made."""
    rng = np.random.default_rng(abs(int(pixels[:, :, 0].sum() * 1000)))
    gain = rng.uniform(0.9, 1.1, (len(pixels), 1, 1, 1)).astype(np.float32)
    noise = rng.standard_normal(pixels.shape, dtype=np.float32)
    rough = torch.from_numpy(pixels * gain + np.float32(0.04) * noise)
    if rng.random() < 0.5:
        side = pixels.shape[-1]
        small = F.interpolate(
            rough, size=int(side * rng.uniform(0.5, 0.9)), mode="bilinear", antialias=True
        )
        rough = F.interpolate(small, size=side, mode="bicubic")
    return rough


def painted(stream: SceneStream, *, workers: int = 0) -> Batches:
    """Endless labelled batches, painted by `workers` processes."""
    dataset = _Painted(stream, Vocabulary.of(stream.world))
    return iter(DataLoader(dataset, batch_size=None, num_workers=workers))


def shelved(shelf: Shelf, vocabulary: Vocabulary, seed: int) -> Batches:
    """Endless labelled batches of scenes drawn earlier, in a new order each turn."""
    rng = np.random.default_rng(seed)
    size = min(BATCH, len(shelf.scenes))
    while True:
        order = rng.permutation(len(shelf.scenes))
        for first in range(0, len(order) - size + 1, size):
            chosen = order[first : first + size]
            pixels = shelf.pixels[chosen].transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
            labels = vocabulary.labels([shelf.scenes[i] for i in chosen])
            yield _roughen(_shift(pixels, rng)), labels


def _shift(pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The whole batch moved by up to a sixteenth of its side, edges repeated."""
    reach = pixels.shape[-1] // 16
    padding = ((0, 0), (0, 0), (reach, reach), (reach, reach))
    wide = np.pad(pixels, padding, mode="edge")
    top, left = rng.integers(0, 2 * reach + 1, size=2)
    return wide[:, :, top : top + pixels.shape[2], left : left + pixels.shape[3]]


def train(
    batches: Batches, vocabulary: Vocabulary, *, seconds: float, seed: int = 0, rate: float = 2e-3
) -> tuple[Verifier, int]:
    """A verifier trained for so long, and how many pictures it saw; cosine decay over the time."""
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    half = device.type == "cuda" or multiplies_bf16(device)
    model = Verifier(vocabulary).to(device)
    optimizer = Muon(model.parameters(), hidden_weights(model), lr=rate, weight_decay=1e-2)
    start, seen = time.monotonic(), 0
    for pictures, labels in batches:
        done = (time.monotonic() - start) / seconds
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate * (0.5 + 0.5 * float(np.cos(np.pi * done)))
        optimizer.zero_grad()
        right = {name: send(label, device) for name, label in labels.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            total = loss(model(send(pictures, device)), right)
        total.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()
        seen += len(pictures)
    return model.cpu().eval(), seen


def as_read(pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
    """Pictures of one size as networks read them, (B, 3, H, W) in -1 to 1."""
    stacked = np.stack([np.asarray(picture.convert("RGB"), np.float32) for picture in pictures])
    return stacked.transpose(0, 3, 1, 2) / 127.5 - 1


@torch.inference_mode()
def accuracy(model: Verifier, stream: SceneStream, *, batches: int = 16) -> dict[str, list[bool]]:
    """Marks on fresh renders: give a stream of another seed than the one trained on.

    Scenes of a pair count for `two objects` alone.
    """
    marks: dict[str, list[bool]] = {}
    for pixels, examples in islice(stream.batches(BATCH), batches):
        logits = model(torch.from_numpy(pixels))
        for pair in (False, True):
            chosen = [k for k, e in enumerate(examples) if bool(e.scene.relation) == pair]
            if not chosen:
                continue
            labels = model.vocabulary.labels([examples[k].scene for k in chosen])
            graded = grade({name: rows[chosen] for name, rows in logits.items()}, labels)
            for name, right in graded.items():
                if not pair:
                    marks.setdefault(name, []).extend(right)
                elif name == "object":
                    marks.setdefault("two objects", []).extend(right)
    return marks
