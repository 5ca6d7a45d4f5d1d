"""`isochrone curated` where the entries stand in a file: it reads them, and says where to change them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from isochrone.cli import main

CONFIG = """
[answers]
curated = "faq.csv"

[[region]]
name = "eu-west-1"

[[backend]]
name = "pool"
base_url = "http://127.0.0.1:9/v1"
models = { "m" = "m" }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "isochrone.toml").write_text(CONFIG)
    (tmp_path / "faq.csv").write_text('id,phrasings,answer,models\nhi,"Hi\nHello",Welcome.,m\n')
    return tmp_path


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["curated", *arguments, "--config", str(folder / "isochrone.toml")])


def test_file_of_the_configurations_folder_is_read(folder: Path) -> None:
    assert run(folder, "list").output == "hi version 1: 'Hi' -> 'Welcome.'\n"
    assert run(folder, "show", "hi").output == "hi version 1\n  asked: Hi\n  asked: Hello\n  models: m\nWelcome.\n"
    assert run(folder, "test", "HELLO!", "--model", "m").output == "hi version 1: Welcome.\n"
    assert run(folder, "test", "hello").exit_code == 1
    run(folder, "export", str(folder / "out.jsonl"))
    expected = '{"id":"hi","phrasings":["Hi","Hello"],"answer":"Welcome.","models":["m"]}\n'
    assert (folder / "out.jsonl").read_text() == expected


def test_question_in_other_words_is_tried_where_similar_ones_are_answered(folder: Path) -> None:
    (folder / "faq.csv").write_text("id,phrasings,answer\npay,How do I pay?,By card.\n")
    asked = ("test", "hi, tell me how I can pay", "--json")
    assert run(folder, *asked).exit_code == 1
    config = folder / "isochrone.toml"
    config.write_text(CONFIG.replace("[answers]", "[answers]\nsemantic = true"))
    told = json.loads(run(folder, *asked).output)
    assert told == {"id": "pay", "version": 1, "similar": True, "answer": "By card."}


@pytest.mark.parametrize("arguments", [("import", "faq.csv"), ("delete", "hi"), ("rollback",), ("history",)])
def test_command_that_needs_the_table_says_where_the_entries_are(folder: Path, arguments: tuple[str, ...]) -> None:
    arguments = tuple(str(folder / word) if word.endswith(".csv") else word for word in arguments)
    done = run(folder, *arguments)
    assert done.exit_code == 2
    assert done.output == (
        "Error: state.kind is memory: change the file that answers.curated names, and start the edge anew\n"
    )


def test_mistakes_are_one_line_each(folder: Path) -> None:
    (folder / "faq.csv").write_text("id,phrasings,answer\nhi,Hi,\n")
    done = run(folder, "list")
    assert (done.exit_code, done.output) == (2, f"Error: answers.curated: {folder}/faq.csv:2: answer: is empty\n")
    (folder / "faq.csv").write_text("id,phrasings,answer\nhi,Hi,x\n")
    done = run(folder, "export", str(folder / "out.xlsx"))
    assert (done.exit_code, done.output) == (2, f"Error: {folder}/out.xlsx: the name must end in .csv or .jsonl\n")
    done = run(folder, "export", str(folder / "none" / "out.csv"))
    assert (done.exit_code, done.output) == (2, f"Error: {folder}/none/out.csv: No such file or directory\n")
    done = run(folder, "import", str(folder / "none.csv"))
    assert (done.exit_code, done.output) == (2, f"Error: {folder}/none.csv: No such file or directory\n")
