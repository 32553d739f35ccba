"""The pictures are whole by themselves, well formed, and small."""

from __future__ import annotations

import base64
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

from lifecycle.pictures import data_uri, loss_picture, timeline_picture
from tests.reports import at, entry

Make = Callable[..., dict[str, Any]]
SVG = "{http://www.w3.org/2000/svg}"


def words(picture: str) -> list[str]:
    """What is written in a picture."""
    return [found.text or "" for found in ET.fromstring(picture).iter(f"{SVG}text")]


def test_the_losses_are_drawn_and_named(make_report: Make) -> None:
    """A line for each loss, with its last value; a metric that is no loss is left out."""
    picture = loss_picture(make_report()["metric_history"])

    assert picture is not None
    assert 1 == len(list(ET.fromstring(picture).iter(f"{SVG}path")))
    assert {"loss 0.02", "over training steps"} <= set(words(picture))


def test_no_loss_is_no_picture() -> None:
    """A run that failed before it trained has nothing to draw."""
    assert None is loss_picture({})


def test_the_timeline_names_every_step_of_the_run_and_of_its_job(make_report: Make) -> None:
    """Each with its seconds, the job's own steps among them."""
    written = words(timeline_picture(make_report()))

    assert {"Train", "training", "chat_completion_finetune", "1 min 00 s", "40 s"} <= set(written)


def test_the_timeline_says_which_steps_are_the_baselines(make_report: Make) -> None:
    """Both models are deployed, given their traffic and asked; those of the new one say nothing."""
    report = make_report()
    baseline = {"name": "baseline", "model": "azureml://m", "began_at": at(86)}
    report["endpoint"]["deployments"].append(baseline)
    report["steps"] += [
        entry("route_traffic", 85, 85),
        entry("deploy_model", 86, 88),
        entry("route_traffic", 88, 88),
        entry("invoke_endpoint", 89, 90),
    ]

    written = words(timeline_picture(report))

    for words_of in ("deploying", "routing the traffic", "asking"):
        told = [one for one in written if one.startswith(words_of)]
        assert [words_of, f"{words_of} (baseline)"] == told
    assert [] == [one for one in words(timeline_picture(make_report())) if "(" in one]


def test_what_others_named_stays_text(make_report: Make) -> None:
    """A step whose name is markup does not become part of the picture."""
    report = make_report()
    report["job"]["steps"][0]["name"] = "<script>&"

    assert "<script>&" in words(timeline_picture(report))


def test_an_address_holds_the_whole_picture() -> None:
    """What a page is given is the picture itself, and nothing that it would have to fetch."""
    head, _, body = data_uri("<svg/>").partition(",")

    assert ("data:image/svg+xml;base64", b"<svg/>") == (head, base64.b64decode(body))


def test_a_long_run_is_still_a_small_picture() -> None:
    """A thousand points are some tens of kB: Prefect keeps the picture in its database."""
    history = {name: [[step, 1.0 / step] for step in range(1, 1001)] for name in ("loss", "a_loss")}

    picture = loss_picture(history)
    assert picture is not None
    assert len(data_uri(picture)) < 60_000
