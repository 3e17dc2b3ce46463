"""The stages of `gpu.py`, most valuable first."""

from __future__ import annotations

from gpu_stages import check, images, molecules, speed
from gpu_stages.bench import Stage

#: A new stage is one more entry.
STAGES: dict[str, Stage] = {stage.name: stage for stage in (check.STAGE, speed.STAGE, *images.STAGES, molecules.STAGE)}
