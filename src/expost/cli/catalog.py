"""The commands: where each is, what prints its result, its summary and examples. Nothing is imported for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DESCRIPTION = "Generative modelling with regularized autoencoders: train, fit a density ex post, sample, evaluate."


@dataclass(frozen=True)
class Command:
    """A command, which is imported when it is asked for.

    Attributes:
        home: Its module, below `expost`, and its function.
        shown: The function of `expost.cli.printing` that prints its result for a person, without `show_`.
        summary: The first line of its docstring.
        examples: Lines that a person types, for its help.
        shared: Whether several launched processes run it together; any other is run by the first of them alone.
        torch: Whether it needs torch, which takes seconds to import.
        failed: The function of `expost.cli.printing` that tells whether its result is to end with status 1, without
            `failed_`; without one it never does.
        after_stop: After Ctrl-C: "resume" goes on with --resume, "again" when the same is typed again; "saved" keeps
            what was saved before; "nothing" has nothing to go on with.
    """

    home: str
    shown: str
    summary: str
    examples: tuple[str, ...]
    shared: bool = False
    torch: bool = True
    failed: str = ""
    after_stop: Literal["resume", "again", "saved", "nothing"] = "saved"


#: The commands, in the order of the help.
COMMANDS: dict[str, Command] = {
    "zoo": Command(
        "commands.listing:zoo",
        "zoo",
        "List the models: each is one row of choices.",
        (
            "expost zoo",
            "expost zoo --json",
        ),
        torch=False,
    ),
    "data": Command(
        "commands.listing:data",
        "data",
        "List the named data sets, or show what a data set is: its parts, classes and shape, and sixteen examples.",
        (
            "expost data",
            "expost data photos/ --size 64",
            "expost data scans/ --range 0 4095 --out scans.png",
        ),
        torch=False,  # the list does without
    ),
    "train": Command(
        "commands.training:train",
        "run",
        "Train a model of the zoo; the best weights on validation data are kept.",
        (
            "expost train rae-l2 --data mnist-5k --out runs/first",
            "expost train vae --data photos/ --size 64 --out runs/photos --epochs 50",
            "expost train grae --data expressions --out runs/strings",
            "expost train cv-vae --data digits --out runs/cv --set latent.sigma=0.5 --dry-run",
            "expost train rae-l2 --data mnist-5k --out runs/first --resume --epochs 50",
        ),
        shared=True,
        after_stop="resume",
    ),
    "fit": Command(
        "commands.fitting:fit",
        "fitted",
        "Fit a density on the codes of the run's training set, and save it with the run.",
        (
            "expost fit runs/first --density gmm --components 10",
            "expost fit runs/first --density gmm --set covariance=diag",
            "expost fit runs/first --density auto",
        ),
        shared=True,
    ),
    "sample": Command(
        "commands.showing:sample",
        "path",
        "Draw from a fitted density and decode.",
        (
            "expost sample runs/first -n 64 --out samples.png",
            "expost sample runs/first -n 10000 --out samples.npy",
            "expost sample runs/first -n 40 --out slide.svg --columns 10 --scale 4 --title 'New digits'",
        ),
    ),
    "reconstruct": Command(
        "commands.showing:reconstruct",
        "path",
        "Show test examples and their reconstructions: images in rows, strings in two columns.",
        ("expost reconstruct runs/first --out reconstructions.png",),
    ),
    "interpolate": Command(
        "commands.showing:interpolate",
        "path",
        "Show paths between the codes of random pairs of test examples, a row each.",
        ("expost interpolate runs/first --out paths.png --method spherical",),
    ),
    "panel": Command(
        "commands.showing:panel",
        "path",
        "Show a run in one figure: test examples with reconstructions, paths, and samples of each fitted density.",
        (
            "expost panel runs/first",
            "expost panel runs/first --densities gaussian gmm --out slide.pdf",
        ),
    ),
    "evaluate": Command(
        "commands.scoring:evaluate",
        "scores",
        "Score reconstructions, samples, interpolations and codes against the test split, and save the scores.",
        (
            "expost evaluate runs/first",
            "expost evaluate runs/first --densities gmm kde --bootstrap 100",
        ),
        shared=True,
    ),
    "rank": Command(
        "commands.scoring:rank",
        "ranking",
        "Rank runs by a saved score, with ties; leave out, with the reason, runs that were scored in another way.",
        ("expost rank runs/* --score fid --of gmm",),
    ),
    "score": Command(
        "commands.scoring:score",
        "scores",
        "Score images of any origin, a folder or an array, against a data set.",
        (
            "expost score samples.npy --reference mnist-5k",
            "expost score generated/ --reference photos/",
        ),
    ),
    "report": Command(
        "commands.reporting:report",
        "path",
        "Report on runs in one page: choices, losses, pictures, codes, scores with their protocols, a ranking.",
        ("expost report runs/first",),
    ),
    "explore": Command(
        "commands.exploring:explore",
        "nothing",
        "Explore a run on a local web page: latent space, samples, reconstructions, paths, neighbours. Ctrl-C ends it.",
        (
            "expost explore runs/first",
            "expost explore runs/first --no-browser --port 8000",
        ),
        after_stop="nothing",
    ),
    "optimize": Command(
        "commands.searching:optimize",
        "search",
        "Search the latent space of a run for strings that score well, by Bayesian optimisation.",
        (
            "expost optimize runs/strings --rounds 5",
            "expost optimize runs/molecules --objective qed",
        ),
        after_stop="again",
    ),
    "reproduce": Command(
        "experiments:reproduce",
        "table",
        "Train and score the models of a table under one protocol: of the paper, beyond it, or of sound.",
        ("expost reproduce table1 --help",),
        after_stop="again",
    ),
    "sweep": Command(
        "experiments.sweep:sweep",
        "table",
        "Train, fit and score a grid of runs, and rank its settings by a score on the validation split.",
        (
            "expost sweep rae-l2 vae --data mnist-5k --set beta=1e-4,1e-3,1e-2 epochs=10 --seeds 3 --out runs/sweep",
            "expost sweep rae-l2 --data mnist --set latent_dim=8,16,32 --out /shared/sweep --engine ray --address auto",
        ),
        after_stop="again",
    ),
    "push": Command(
        "commands.publishing:push",
        "path",
        "Publish a run on the Hugging Face Hub: weights, densities, scores and a model card with pictures.",
        (
            "expost push runs/first me/rae-digits --license mit --dry-run --out look",
            "expost push runs/first me/rae-digits --license mit --private",
        ),
    ),
    "pull": Command(
        "commands.publishing:pull",
        "run",
        "Fetch a published run into a folder, which all commands take as a run.",
        ("expost pull me/rae-digits --out runs/theirs",),
    ),
    "export": Command(
        "commands.publishing:export",
        "exported",
        "Write the run's encoder and decoder as ONNX files, and compare their outputs with torch's.",
        ("expost export runs/first --out onnx/",),
    ),
    "doctor": Command(
        "commands.doctor:doctor",
        "doctor",
        "Report what this machine has, and train a tiny model for one step; or check a run's folder, file by file.",
        (
            "expost doctor",
            "expost doctor runs/first",
            "expost doctor --json",
        ),
        failed="doctor",
    ),
    "completion": Command(
        "cli.completing:completion",
        "path",
        "Print a shell's script for completing commands, options, files, runs, models, densities and labels.",
        (
            "expost completion bash > ~/.local/share/bash-completion/completions/expost",
            "expost completion zsh > ~/.zfunc/_expost",
            "expost completion fish > ~/.config/fish/completions/expost.fish",
        ),
    ),
}
