"""`experiment=spoken_digits` from the command line: one chip, held out speakers, control of timing."""

import json

import pytest
from commands import call

SHORT = ["experiment=spoken_digits", "trainer.epochs=1", "trainer.train_samples=100", "trainer.plots=false"]
SMALL = ["backend=software", "network.hidden=[20]"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    place = tmp_path_factory.mktemp("spoken_digits")
    runs = {
        "loop": ["chip.preset=ideal", "data.validation_groups=[2,11]"],
        "shuffled": [*SMALL, "data.validation_groups=[2,11]", "data.shuffled_times=true"],
        "feed_forward": [*SMALL, "network.recurrent=false", "network.init_gain_recurrent=null"],
    }
    for name, words in runs.items():
        process = call("hxtrain", *SHORT, *words, f"hydra.run.dir={name}", cwd=place)
        assert process.returncode == 0, process.stderr
    return {name: json.loads((place / name / "result.json").read_text()) for name in runs}


def test_network_fits_one_chip(results):
    assert results["loop"]["data"] == "spoken_digits"
    assert results["loop"]["hidden_spikes_per_sample"] > 1


def test_held_out_speakers_are_evaluated(results):
    assert results["loop"]["test_samples"] == results["shuffled"]["test_samples"] == 305
    assert results["feed_forward"]["test_samples"] == 420


def test_result_tells_the_data_from_recordings(results):
    for result in results.values():
        assert "not the Spiking Heidelberg Digits" in json.dumps(result)
    assert "shuffled" in json.dumps(results["shuffled"])
