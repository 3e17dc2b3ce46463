"""Sections of sound: spectrograms with the sound that they give, made by the Griffin-Lim algorithm."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from expost.data.spectrogram import Spectrogram
from expost.examples.pictures import to_bytes
from expost.examples.waves import data_uri, joined
from expost.report.blocks import Block, Note, Picture, Pictures
from expost.report.glance import Glance
from expost.report.images import STEPS, image_glance, image_interpolations, image_neighbours
from expost.report.pictures import stack, tiles
from expost.report.subject import Makers, Subject

#: Most bytes of sound in a section, and most recordings that can be heard there.
BYTES, MOST, FEWEST = 600_000, 16, 2
#: Paths that can be heard.
PATHS = 3
HOW = " Phases are not modelled: the Griffin-Lim algorithm finds them, for recordings too, so that both sound alike."


def sound_reconstructions(subject: Subject) -> list[Block]:
    """Return spectrograms of test recordings above their reconstructions, with the sound of both."""
    count = _heard(subject, 2)
    test = subject.data.test
    rows = test.spread(count)
    x, labels = test.x[rows], subject.data.labels(test)
    back = to_bytes(subject.generator.reconstruct(x))
    pairs = []
    for index, (original, again) in enumerate(zip(_sounds(subject, x), _sounds(subject, back), strict=True)):
        row = int(rows[index])
        label = "" if labels is None else str(labels[row])
        picture = stack(x[index], back[index], f"Test recording {row} above its reconstruction", label, subject.scale)
        pairs.append(replace(picture, sounds=(("recording", original), ("reconstruction", again))))
    caption = (
        f"Above, {len(x)} test recordings from all over the split; below each, its reconstruction. Sound likewise.{HOW}"
    )
    return [Pictures(tuple(pairs), caption, "flow heard")]


def sound_samples(subject: Subject) -> list[Block]:
    """Return samples from every density with their sound."""
    count = _heard(subject, max(1, len(subject.generator.densities)))
    blocks: list[Block] = []
    for name in subject.generator.densities:
        drawn = to_bytes(subject.sample(count, name))
        items = [
            replace(
                tiles(frames[None], 1, f"Sample {index} from {name}", scale=subject.scale),
                sounds=((f"sample {index} from {name}", sound),),
            )
            for index, (frames, sound) in enumerate(zip(drawn, _sounds(subject, drawn), strict=True))
        ]
        caption = f"{name}: the first {count} samples of the seed, not selected."
        blocks.append(Pictures(tuple(items), caption, "flow heard"))
    return blocks


def sound_interpolations(subject: Subject) -> list[Block]:
    """Return paths between the codes of test recordings as rows of spectrograms, the first of them with their sound."""
    blocks = image_interpolations(subject)
    rows = blocks[0]
    if isinstance(rows, Note):
        return blocks
    assert isinstance(rows, Pictures)
    spectrogram = _spectrogram(subject)
    a, b = subject.ends(PATHS)
    steps = to_bytes(subject.generator.interpolate(a, b, torch.linspace(0, 1, STEPS)))
    heard: list[Picture] = []
    for index, picture in enumerate(rows.items):
        if index < len(steps):
            every = steps[index][:: 3 if STEPS % 3 == 1 else 1]
            sound = data_uri(joined(spectrogram.waves(every), spectrogram.sound.rate), spectrogram.sound.rate)
            picture = replace(picture, sounds=((f"path {index}, {len(every)} of its steps", sound),))
        heard.append(picture)
    return [_worded(replace(rows, items=tuple(heard)))]


def _spectrogram(subject: Subject) -> Spectrogram:
    assert subject.data.sound is not None
    return Spectrogram(subject.data.sound)


def _heard(subject: Subject, times: int) -> int:
    """Return how many recordings can be heard in a section that holds each so many times."""
    assert subject.data.sound is not None
    each = subject.data.sound.samples * 2 * 4 / 3  # 16 bits, base64
    return max(FEWEST, min(MOST, int(BYTES / (each * times))))


def _sounds(subject: Subject, frames: Tensor) -> list[str]:
    """Return the sound of log-mel frames as data URIs."""
    spectrogram = _spectrogram(subject)
    return [data_uri(wave, spectrogram.sound.rate) for wave in spectrogram.waves(frames)]


def _worded(block: Block) -> Block:
    """Call images recordings, where the sections of images are taken."""
    if not isinstance(block, Pictures):
        return block
    items = tuple(replace(item, alt=item.alt.replace("image", "recording")) for item in block.items)
    caption = block.caption.replace("images", "recordings").replace(
        "of pixels in [0, 1]", "of log-mel frames in [0, 1]"
    )
    return replace(block, items=items, caption=caption)


def sound_neighbours(subject: Subject) -> list[Block]:
    """Return samples above their nearest training recordings, as spectrograms."""
    return [_worded(block) for block in image_neighbours(subject)]


def sound_glance(subject: Subject) -> Glance:
    """Return strips of spectrograms: test recordings, their reconstructions and samples."""
    return replace(image_glance(subject), noun="recordings")


SOUND = Makers(sound_reconstructions, sound_samples, sound_neighbours, sound_interpolations, sound_glance)
