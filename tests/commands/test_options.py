"""Options that belong together: declared once, flat in Python and on the command line, and keys of what they become."""

import inspect
from dataclasses import asdict, fields

import pytest

import expost
from expost.cli.catalog import COMMANDS
from expost.cli.parsing import load, main
from expost.commands import train_options
from expost.commands.groups import Group, groups_of, takes
from expost.commands.searching import SEARCH, optimize
from expost.commands.training import train
from expost.config import DataConfig, ModelConfig, TrainingConfig
from expost.data.encoding import suit_codec
from expost.errors import UsageError
from expost.experiments import reproduce, sweep
from expost.experiments.engines import RESOURCES, Resources
from expost.search import SearchConfig


def names_of(kind):
    return {field.name for field in fields(kind)}


@pytest.mark.parametrize(
    ("group", "becomes"),
    [
        (train_options.DATA, names_of(DataConfig)),
        (train_options.MODEL, names_of(ModelConfig)),
        (train_options.TRAINING, names_of(TrainingConfig)),
        (train_options.STRINGS, set(inspect.signature(suit_codec).parameters)),
        (SEARCH, names_of(SearchConfig)),
    ],
)
def test_the_options_of_a_group_are_fields_of_what_they_become(group, becomes):
    assert group.names
    assert set(group.names) <= becomes


def test_the_options_of_a_grid_are_the_fields_of_its_resources_with_their_defaults():
    assert RESOURCES.unset == asdict(Resources())
    assert groups_of(sweep) == groups_of(reproduce) == {"grid": RESOURCES}


def test_train_has_the_options_of_its_groups_each_once():
    declared = [name for group in groups_of(train).values() for name in group.names]
    assert declared == list(train_options.TrainOptions.__annotations__)
    assert len(set(declared)) == len(declared)


@pytest.mark.parametrize("command", [train, optimize, sweep, reproduce])
def test_every_option_of_a_group_says_what_it_is(command):
    for group in groups_of(command).values():
        for name in group.names:
            assert f"        {name}: " in (group.record.__doc__ or ""), name


def test_options_are_flat_keywords_and_none_leaves_them_to_the_preset(tmp_path):
    run = expost.train("rae", "digits", tmp_path / "x", epochs=3, latent_dim=4, lr=None, limit=50, dry_run=True)
    plain = expost.train("rae", "digits", tmp_path / "x", dry_run=True)
    assert (run.config.training.epochs, run.config.model.latent_dim, run.config.data.limit) == (3, 4, 50)
    assert run.config.training.lr == plain.config.training.lr


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"epoch": 3}, "train has no option 'epoch', did you mean 'epochs'? its options: model, data, out, preset"),
        ({"resum": True}, "did you mean 'resume'?"),
        ({"xyz": 1}, "train has no option 'xyz'; its options: "),
    ],
)
def test_an_unknown_keyword_is_refused_in_one_line_with_the_nearest(wrong, said, tmp_path):
    with pytest.raises(UsageError) as refused:
        expost.train("rae", "digits", tmp_path / "x", **wrong)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "x").exists()


def test_slots_take_mappings_and_words(tmp_path):
    common = {"model": "cv-vae", "data": "digits", "out": tmp_path / "x", "dry_run": True}
    words = expost.train(options=["latent.sigma=0.5"], **common)
    assert words.config == expost.train(options={"latent.sigma": 0.5}, **common).config


def test_an_option_of_a_group_has_the_default_of_the_group():
    @takes(own=Group(train_options.DataOptions, {"size": 3}))
    def command(first, **given):
        return first, given

    assert command(1, size=2) == (1, {"size": 2})
    assert groups_of(command)["own"].unset == dict.fromkeys(train_options.DATA.names) | {"size": 3}
    assert groups_of(len) == {}


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "completion"])
def test_every_command_refuses_a_keyword_that_it_does_not_have_in_one_line(name):
    function, _ = load(name)
    with pytest.raises(UsageError, match=f"^{name} has no option 'no_such_word'.*its options:") as refused:
        function(no_such_word=3)
    assert "\n" not in str(refused.value)


def test_a_keyword_that_is_misspelt_is_corrected():
    with pytest.raises(UsageError, match="fit has no option 'component', did you mean 'components'"):
        expost.fit("runs/none", density="gmm", component=3)  # type: ignore[call-arg]


def test_errors_name_options_as_python_does_and_the_command_line_as_they_are_typed(tmp_path, capsys):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    with pytest.raises(UsageError, match="continue it with resume, or choose another out"):
        expost.train("rae", "digits", tmp_path / "there")
    with pytest.raises(UsageError, match="latent_dim is 100"):
        expost.train("rae", "digits", tmp_path / "run", latent_dim=100)
    words = ["train", "rae", "--data", "digits", "--out"]
    for more, said in (
        ([str(tmp_path / "there")], "continue it with --resume, or choose another --out"),
        ([str(tmp_path / "run"), "--latent-dim", "100"], "--latent-dim is 100"),
    ):
        with pytest.raises(SystemExit):
            main([*words, *more])
        assert said in capsys.readouterr().err
