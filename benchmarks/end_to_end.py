"""Train, fit, sample and score, from arrays to a number, against Pythae with numpy and scipy.

    python benchmarks/end_to_end.py [--images 1000] [--epochs 1] [--width 32] [--json]

The task: RAE-L2 on real digits, a 10-component mixture, 500 samples, and their Frechet distance on the features of the
bundled digit classifier. Theirs uses Pythae's trainer and sampler, numpy's covariances and scipy's matrix root. One run
of each is timed, after a warm-up run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from pathlib import Path

import numpy as np
import scipy.linalg
from harness import Contest, compete, parser
from peer import theirs

import expost
from expost.data import load_data
from expost.metrics import DigitFeatures
from expost.types import to_unit


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=1000)
    options.add_argument("--epochs", type=int, default=1)
    options.add_argument("--width", type=int, default=32)
    arguments = options.parse_args()
    logging.disable(logging.WARNING)
    data = load_data("mnist-5k", limit=arguments.images)
    features = DigitFeatures()

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder, quiet():
            run = expost.train(
                "rae-l2", "mnist-5k", Path(folder) / "run", epochs=arguments.epochs, width=arguments.width,
                limit=arguments.images, tensorboard=False, device=arguments.device,
            )  # fmt: skip
            scores = expost.evaluate(run, ("gmm",), ("frechet",), features="digits", device=arguments.device)
        return next(score.value for score in scores if score.of == "gmm")

    def pythae() -> float:
        from pythae.pipelines import TrainingPipeline
        from pythae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig
        from pythae.trainers import CoupledOptimizerTrainerConfig

        with tempfile.TemporaryDirectory() as folder, quiet():
            model = theirs("rae-l2", arguments.width)
            settings = CoupledOptimizerTrainerConfig(
                output_dir=folder, num_epochs=arguments.epochs, learning_rate=1e-3, per_device_train_batch_size=100,
                per_device_eval_batch_size=100, no_cuda=arguments.device == "cpu",
            )  # fmt: skip
            TrainingPipeline(training_config=settings, model=model)(
                train_data=to_unit(data.train.x), eval_data=to_unit(data.validation.x)
            )
            sampler = GaussianMixtureSampler(model.eval(), GaussianMixtureSamplerConfig(n_components=10))
            sampler.fit(to_unit(data.train.x))
            samples = sampler.sample(num_samples=len(data.test))
            model(pythae_inputs(to_unit(data.test.x)))  # reconstructions, which ours scores too
        a, b = (features(x.cpu()).numpy().astype(np.float64) for x in (samples, data.test.x))
        root = scipy.linalg.sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)).real
        traces = np.trace(np.cov(a, rowvar=False)) + np.trace(np.cov(b, rowvar=False)) - 2 * np.trace(root)
        return float(np.square(a.mean(0) - b.mean(0)).sum() + traces)

    compete([Contest("end_to_end", ours, pythae)], 1, arguments.json)


def pythae_inputs(x):
    """Return Pythae's record of a batch."""
    from pythae.data.datasets import DatasetOutput

    return DatasetOutput(data=x)


@contextlib.contextmanager
def quiet():
    """Silence both sides."""
    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        yield


if __name__ == "__main__":
    main()
