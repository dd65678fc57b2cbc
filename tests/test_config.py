"""The run file: strict, documented, and written so that it reads back the same."""

import pytest
import yaml
from pydantic import BaseModel

from elastic_nas.config import DataConfig, RunConfig
from elastic_nas.errors import ConfigError
from elastic_nas.facts import train_config
from elastic_nas.network import Network
from elastic_nas.run_file import dump_run, known_keys, parse_run, read_run_file, recipe, recipes
from elastic_nas.yaml_file import read_yaml


def test_every_recipe_can_be_used():
    assert recipes() == [
        "attentive_nas_imagenet", "bignas_imagenet", "cifar", "digits", "small_data"
    ]  # fmt: skip
    for name in recipes():
        config = recipe(name)
        assert (config.train.epochs or config.train.minutes or config.train.steps) is not None
        assert config.space is None or Network(config.space, 10)


ODD = RunConfig(
    data=DataConfig(
        source="/a path/with  spaces: and # signs/" + "a very long name " * 12 + "\N{CAT FACE}'\""
    ),
    space="./mine.py:size=8",
    seed=2**31 - 1,
)


@pytest.mark.parametrize("config", [RunConfig(), ODD, *map(recipe, recipes())])
def test_what_is_written_reads_back_the_same(config, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(dump_run(config))
    assert read_run_file(path) == config
    assert dump_run(read_run_file(path)) == dump_run(config)


def test_a_recipe_keeps_its_nulls_on_the_command_line():
    changes = ["data=photos", "train.workers=3"]
    config, _ = train_config("attentive_nas_imagenet", "photos", None, changes, resume=False)
    assert (config.train.clip_norm, config.train.clip_value) == (None, 1.0)
    assert (config.data.source, config.train.workers) == ("photos", 3)


def test_every_key_is_explained_where_it_is_written():
    for line in dump_run(RunConfig()).splitlines():
        key, _, rest = line.strip().partition(": ")
        assert key.endswith(":") or len(rest.partition("  # ")[2]) > 5, line


def test_overrides_replace_values_and_lengths_replace_each_other():
    changed = parse_run(
        {"train": {"epochs": 3}}, ["train.steps=7", "train.augment.strong=none", "data=photos"]
    )
    assert (changed.train.steps, changed.train.epochs) == (7, None)
    assert changed.train.augment.strong == "none"
    assert changed.data.source == "photos"
    assert parse_run({"train": {"steps": 3}}, ["train.minutes=1.5"]).train.minutes == 1.5
    assert parse_run({}, ["space=null"]).space is None
    assert parse_run({}, ["data=a=b"]).data.source == "a=b"


def test_configs_are_frozen_and_whole_numbers_are_numbers():
    config = parse_run({"train": {"learning_rate": 1, "warmup": 0}})
    assert config.train.learning_rate == 1
    with pytest.raises(ValueError, match="frozen"):
        config.train.momentum = 0.5
    with pytest.raises(ConfigError, match=r"train\.batch_size"):
        parse_run({"train": {"batch_size": True}})
    with pytest.raises(ConfigError, match=r"train\.batch_size"):
        parse_run({"train": {"batch_size": 32.0}})


def limits(model: type[BaseModel], prefix: str = "") -> list[tuple[str, object]]:
    """Each limited key with a value just beyond its limit."""
    found: list[tuple[str, object]] = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += limits(kind, f"{prefix}{name}.")
        for rule in field.metadata:
            for limit, step in (("gt", 0), ("ge", -1), ("le", 1), ("lt", 0)):
                if getattr(rule, limit, None) is not None:
                    found.append((prefix + name, getattr(rule, limit) + step))
    return found


@pytest.mark.parametrize(("key", "value"), limits(RunConfig))
def test_values_beyond_the_limit_are_refused_by_name(key, value):
    with pytest.raises(ConfigError, match=f"{key}: must be (greater|less) than.*, got {value}"):
        parse_run({}, [f"{key}={value}"])


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        parse_run({"sead": 1, "train": {"batch_size": 0, "momentum": "much"}}, source="my.yaml")
    message = str(caught.value)
    assert message.startswith("my.yaml cannot be used:\n")
    for part in ("'sead'; did you mean 'seed'?", "train.batch_size: ", "train.momentum: "):
        assert part in message
    assert all(key in message for key in known_keys())
    with pytest.raises(ConfigError) as caught:
        parse_run({"seed": "x" * 1000})
    assert len(str(caught.value)) < 200  # long values are cut, and keys that are right not listed


def test_duplicates_are_found_at_any_depth_and_in_large_files(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("train:\n  augment: {strong: none, strong: trivial}\n")
    with pytest.raises(ConfigError, match="'strong' stands there twice, again in line 2"):
        read_yaml(path)
    path.write_text("".join(f"k{i}: {i}\n" for i in range(20_000)))
    assert len(read_yaml(path)) == 20_000
    path.write_text("? [a, b]\n: 1\n? {c: d}\n: 2\n")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        read_yaml(path)


def test_the_written_file_is_plain_yaml():
    values = yaml.safe_load(dump_run(RunConfig()))
    assert values == RunConfig().model_dump()
