"""The commands: where each is, its summary, what prints its result, and examples. Nothing is imported for it."""

from __future__ import annotations

from dataclasses import dataclass

DESCRIPTION = "Generative modelling with regularized autoencoders: train, fit a density ex post, sample, evaluate."


@dataclass(frozen=True)
class Command:
    """A command, which is imported when it is asked for.

    Attributes:
        home: Its module, below `expost`, and its function.
        shown: What of `expost.cli.printing` prints its result for a person: the name behind `show_`.
        summary: The first line of its docstring.
    """

    home: str
    shown: str
    summary: str


#: The commands, in the order of the help.
COMMANDS: dict[str, Command] = {
    "zoo": Command("commands.listing:zoo", "zoo", "List the models: each is one row of choices."),
    "data": Command(
        "commands.listing:data", "data", "List the data sets that have names, and what can be read from disk."
    ),
    "train": Command(
        "commands.training:train", "run", "Train a model of the zoo; the best weights on validation data are kept."
    ),
    "fit": Command(
        "commands.fitting:fit",
        "path",
        "Fit a density on the codes of the run's training set, and save it with the run.",
    ),
    "sample": Command("commands.showing:sample", "path", "Draw from a fitted density and decode."),
    "reconstruct": Command(
        "commands.showing:reconstruct",
        "path",
        "Show test examples and their reconstructions: images in rows, strings in two columns.",
    ),
    "interpolate": Command(
        "commands.showing:interpolate",
        "path",
        "Show paths between the codes of random pairs of test examples, a row each.",
    ),
    "evaluate": Command(
        "commands.scoring:evaluate",
        "scores",
        "Score reconstructions, samples, interpolations and codes against the test split, and save the scores.",
    ),
    "rank": Command(
        "commands.scoring:rank",
        "ranking",
        "Order runs by a saved score, and refuse if they were not scored in the same way.",
    ),
    "score": Command(
        "commands.scoring:score",
        "scores",
        "Score images that anything has made: a folder or array of pictures against a data set.",
    ),
    "report": Command(
        "commands.reporting:report",
        "path",
        "Show all about runs on one page: choices, losses, pictures, codes, scores with their protocols, a ranking.",
    ),
    "explore": Command(
        "commands.exploring:explore",
        "nothing",
        "Explore a run on a local web page: latent space, samples, reconstructions, paths, neighbours. Ctrl-C ends it.",
    ),
    "optimize": Command(
        "commands.searching:optimize",
        "search",
        "Search the latent space of a run for strings that score well, by Bayesian optimisation.",
    ),
    "reproduce": Command(
        "experiments:reproduce", "table", "Train and score the models of a table of the paper under one protocol."
    ),
    "sweep": Command(
        "experiments.sweep:sweep",
        "table",
        "Train, fit and score a grid of runs, and rank its settings by a score on the validation split.",
    ),
    "push": Command(
        "commands.publishing:push",
        "path",
        "Publish a run on the Hugging Face Hub: weights, densities, scores and a model card with pictures.",
    ),
    "pull": Command(
        "commands.publishing:pull", "run", "Fetch a published run into a folder, where all commands take it as a run."
    ),
    "export": Command(
        "commands.publishing:export",
        "exported",
        "Write the run's encoder and decoder as ONNX files, and compare their outputs with torch's.",
    ),
    "doctor": Command(
        "commands.doctor:doctor",
        "doctor",
        "Report what this machine has: versions, devices, weights, data, settings; and train a tiny model for one "
        "step.",
    ),
    "completion": Command(
        "cli.parsing:completion", "path", "Print the script that makes a shell complete commands and options."
    ),
}

#: Commands that several launched processes share; any other is run by the first of them alone.
SHARED = ("train", "fit", "evaluate")

#: What a person types: every command's help ends with these.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "zoo": ("expost zoo", "expost zoo --json"),
    "data": ("expost data",),
    "train": (
        "expost train rae-l2 --data mnist-5k --out runs/first",
        "expost train vae --data photos/ --size 64 --out runs/photos --epochs 50",
        "expost train grae --data expressions --out runs/strings",
        "expost train cv-vae --data digits --out runs/cv --set latent.sigma=0.5 --dry-run",
        "expost train rae-l2 --data mnist-5k --out runs/first --resume --epochs 50",
    ),
    "fit": (
        "expost fit runs/first --density gmm --components 10",
        "expost fit runs/first --density gmm --set covariance=diag",
    ),
    "sample": (
        "expost sample runs/first -n 64 --out samples.png",
        "expost sample runs/first -n 10000 --out samples.npy",
    ),
    "reconstruct": ("expost reconstruct runs/first --out reconstructions.png",),
    "interpolate": ("expost interpolate runs/first --out paths.png --method spherical",),
    "evaluate": ("expost evaluate runs/first", "expost evaluate runs/first --densities gmm kde --bootstrap 100"),
    "rank": ("expost rank runs/* --score fid --of gmm",),
    "score": ("expost score samples.npy --reference mnist-5k", "expost score generated/ --reference photos/"),
    "optimize": ("expost optimize runs/strings --rounds 5", "expost optimize runs/molecules --objective qed"),
    "reproduce": ("expost reproduce table1 --help",),
    "sweep": (
        "expost sweep rae-l2 vae --data mnist-5k --set beta=1e-4,1e-3,1e-2 epochs=10 --seeds 3 --out runs/sweep",
        "expost sweep rae-l2 --data mnist --set latent_dim=8,16,32 --out /shared/sweep --engine ray --address auto",
    ),
    "report": ("expost report runs/first",),
    "explore": ("expost explore runs/first", "expost explore runs/first --no-browser --port 8000"),
    "push": (
        "expost push runs/first me/rae-digits --license mit --dry-run --out look",
        "expost push runs/first me/rae-digits --license mit --private",
    ),
    "pull": ("expost pull me/rae-digits --out runs/theirs",),
    "export": ("expost export runs/first --out onnx/",),
    "doctor": ("expost doctor", "expost doctor --json"),
    "completion": (
        "expost completion bash > ~/.local/share/bash-completion/completions/expost",
        "expost completion zsh > ~/.zfunc/_expost",
        "expost completion fish > ~/.config/fish/completions/expost.fish",
    ),
}
