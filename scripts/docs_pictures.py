"""Make the pictures and the table of docs/noise.md: train four small models, sample each from three densities, score.

    python scripts/docs_pictures.py            # about a minute on one core
    python scripts/docs_pictures.py --out FOLDER --epochs 1

Everything is seeded; on another machine the figures differ in the last digits.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib
import torch
import tyro
from PIL import Image
from scipy.stats import chi
from torch import Tensor

import expost
from expost.evaluation.scores import Score
from expost.examples import pictures
from expost.generators.generator import Generator
from expost.utils.store import replacing, write_text

matplotlib.use("Agg")
from matplotlib import pyplot

DOCS = Path(__file__).resolve().parents[1] / "docs"
MODELS = ("ae", "rae-l2", "vae")
DENSITIES = {"standard-normal": "N(0, I)", "gaussian": "one Gaussian", "gmm": "mixture of ten"}
COLORS = {"ae": "#c2410c", "rae-l2": "#0f766e", "vae": "#6d28d9"}
INK = "#333333"


def trained(model: str, folder: Path, epochs: int, latent_dim: int | None = None) -> expost.Run:
    """Train a multilayer perceptron on the 5,000 bundled digits."""
    return expost.train(
        model, "mnist-5k", folder, network="mlp", epochs=epochs, batch_size=50, latent_dim=latent_dim, tensorboard=False
    )


def strips(generator: Generator) -> Image.Image:
    """Show 20 samples of each density, the same seed for each."""
    rows = [(title, pictures.grid(generator.sample(20, name, seed=0), 10)) for name, title in DENSITIES.items()]
    return pictures.panel(rows, columns=1)


def save_small(picture: Image.Image, path: Path) -> None:
    """Save with 64 shades of gray, enough for digits."""
    with replacing(path) as temporary:
        picture.convert("L").quantize(64).save(temporary, optimize=True)


def draw_norms(codes: dict[str, Tensor], path: Path) -> None:
    """Draw the distances from the origin: of codes, and of draws from N(0, I)."""
    d = next(iter(codes.values())).shape[1]
    figure, axes = pyplot.subplots(figsize=(7, 3.1), layout="constrained")
    grid = torch.linspace(0, 45, 600)
    axes.fill_between(grid, chi(d).pdf(grid), color="#d4d4d4", label=f"N(0, I), d = {d}")
    for name, z in codes.items():
        axes.hist(z.norm(dim=1).numpy(), bins=60, density=True, histtype="step", lw=1.6, color=COLORS[name], label=name)
    axes.set(xlabel="distance of a code from the origin", ylabel="density", xlim=(0, 45))
    finish(figure, axes, path)


def draw_plane(generator: Generator, z: Tensor, y: Tensor, path: Path) -> None:
    """Draw the codes of a two-dimensional autoencoder, N(0, I) as circles, and the level lines of a mixture."""
    figure, axes = pyplot.subplots(figsize=(7, 4.6), layout="constrained")
    axes.scatter(*z.T.numpy(), c=y.numpy(), s=3, cmap="tab10", alpha=0.45, linewidths=0)
    low, high = z.min(0).values - 1, z.max(0).values + 1
    horizontal, vertical = (torch.linspace(float(a), float(b), 200) for a, b in zip(low, high, strict=True))
    points = torch.cartesian_prod(horizontal, vertical)
    log_q = generator.density("gmm").log_prob(points).view(200, 200).T
    inside = generator.density("gmm").log_prob(z).quantile(torch.tensor([0.05, 0.35, 0.7], dtype=torch.float64))
    axes.contour(horizontal, vertical, log_q, levels=inside.tolist(), colors=INK, linewidths=0.9, linestyles="solid")
    angle = torch.linspace(0, 2 * torch.pi, 200)
    for radius in (1, 2, 3):
        axes.plot(radius * angle.cos(), radius * angle.sin(), color="#dc2626", lw=1.4)
    axes.plot([], [], color="#dc2626", label="N(0, I): 1, 2 and 3 standard deviations")
    axes.plot([], [], color=INK, lw=0.9, label="mixture of ten: holds 30, 65 and 95 % of the codes")
    axes.set(xlabel="first code dimension", ylabel="second code dimension")
    axes.set_aspect("equal")
    finish(figure, axes, path)


def finish(figure: pyplot.Figure, axes: pyplot.Axes, path: Path) -> None:
    """Remove the upper and the right spine, add the legend, save."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130)
    pyplot.close(figure)


def table(scores: dict[str, list[Score]], codes: dict[str, Tensor]) -> str:
    """Write the Frechet distances and the norms of the codes as a Markdown table."""
    header = ["model", "mean norm of a code", "reconstructions", *DENSITIES.values()]
    lines = [f"| {' | '.join(header)} |", f"|---|{'---:|' * (len(header) - 1)}"]
    for name, found in scores.items():
        values = {score.of: score.value for score in found if score.name == "frechet-digits"}
        cells = [f"{codes[name].norm(dim=1).mean():.1f}"]
        cells += [f"{values[of]:.2f}" for of in ("reconstruction", *DENSITIES)]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(out: Path = DOCS, epochs: int = 20) -> None:
    """Make all pictures and the table.

    Args:
        out: Folder for images/ and generated/.
        epochs: Passes over the training set for each model.
    """
    (out / "images").mkdir(parents=True, exist_ok=True)
    (out / "generated").mkdir(parents=True, exist_ok=True)
    codes, scores = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for model in MODELS:
            run = trained(model, Path(folder) / model, epochs)
            scores[model] = expost.evaluate(run, tuple(DENSITIES), ("frechet",), features="digits")
            generator = run.generator()
            codes[model] = generator.encode(run.data().train.x)
            save_small(strips(generator), out / "images" / f"noise-{model}.png")
        run = trained("ae", Path(folder) / "plane", epochs, latent_dim=2)
        data, generator = run.data(), run.generator()
        z = generator.encode(data.train.x)
        generator.fit("gmm", codes=z)
        assert data.train.y is not None
        draw_plane(generator, z, data.train.y, out / "images" / "noise-plane.png")
    draw_norms(codes, out / "images" / "noise-norms.png")
    write_text(out / "generated" / "noise.md", table(scores, codes))
    print((out / "generated" / "noise.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    tyro.cli(main)
