"""The curated answers of a running edge, their versions in the directory, and what becomes of both in trouble."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from isochrone.answers.curated import archive as archives
from isochrone.answers.curated.archive import Archive, Conflict
from isochrone.answers.curated.edition import brought_in, taken_out
from isochrone.answers.curated.entry import Entry
from isochrone.answers.curated.shelf import FRESH_SECONDS, Shelf, load_file
from isochrone.background import Background
from isochrone.ledger.usage import estimate
from isochrone.settings import SettingsError
from isochrone.stores.memory import MemoryDirectoryStore
from tests.unit.test_curated_book import NOW, inquiry, said

HELLO = Entry(id="hello", phrasings=("Hi",), answer="Hello.")
BYE = Entry(id="bye", phrasings=("Bye",), answer="Farewell.")


class Desk:
    """A directory and edges that read it."""

    def __init__(self) -> None:
        self.store = MemoryDirectoryStore()
        self.archive = Archive(self.store)
        self.background = Background()
        self._tokens = iter("abcdefghijklmnop")

    async def write(self, *entries: Entry, note: str = "") -> archives.Version:
        after = await self.archive.current(consistent=True)
        return await self.archive.write(entries, after=after, now=NOW, token=next(self._tokens), note=note)

    def edge(self, *fixed: Entry) -> Shelf:
        return Shelf(self.store, fixed, estimate=estimate, background=self.background)


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def ask(shelf: Shelf, question: str, now: float = NOW) -> str | None:
    return said(await shelf.look_up(inquiry(question), now=now))


async def test_edge_knows_what_was_written_before_its_first_request(desk: Desk) -> None:
    await desk.write(HELLO, BYE)
    edge = desk.edge()
    assert await ask(edge, "hi") == "Hello."
    assert edge.status() == {"version": 1, "unread": 0}


async def test_edge_hears_of_a_change_within_half_a_minute_and_not_with_each_request(desk: Desk) -> None:
    edge = desk.edge()
    assert await ask(edge, "hi") is None
    await desk.write(HELLO)
    assert await ask(edge, "hi", NOW + FRESH_SECONDS - 1) is None
    assert await ask(edge, "hi", NOW + FRESH_SECONDS) == "Hello."


async def test_version_that_is_known_is_not_read_again(desk: Desk) -> None:
    await desk.write(HELLO)
    edge = desk.edge()
    await edge.refresh(NOW)
    book = edge.book
    await edge.refresh(NOW + 60)
    assert edge.book is book


async def test_directory_that_is_gone_leaves_the_last_version_answering(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    await desk.write(HELLO)
    edge = desk.edge()
    await edge.refresh(NOW)
    desk.store.failing = True
    assert await ask(edge, "hi", NOW + 1e6) == "Hello."
    assert "going on with version 1, since the directory is unavailable" in caplog.text
    assert edge.status() == {"version": 1, "unread": 1}


async def test_version_whose_parts_are_no_text_leaves_the_last_one_answering(desk: Desk) -> None:
    await desk.write(HELLO)
    edge = desk.edge()
    await edge.refresh(NOW)
    version = await desk.write(BYE)
    await desk.store.put(f"curated/{version.book}", "0000", {"entries": 7})
    assert await ask(edge, "hi", NOW + 1e6) == "Hello."
    assert edge.status() == {"version": 1, "unread": 1}


async def test_slow_directory_does_not_hold_a_request_and_is_heard_in_the_end(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isochrone.answers.curated.shelf._PATIENCE_SECONDS", 0.0)
    answered = asyncio.Event()
    items = desk.store.items

    async def slow(partition: str, *, consistent: bool = False) -> dict[str, dict[str, Any]]:
        await answered.wait()
        return await items(partition, consistent=consistent)

    await desk.write(HELLO)
    monkeypatch.setattr(desk.store, "items", slow)
    edge = desk.edge()
    assert await ask(edge, "hi") is None
    answered.set()
    await desk.background.finish()
    assert await ask(edge, "hi") == "Hello."


async def test_file_and_directory_answer_together_and_the_directory_has_the_last_word(desk: Desk) -> None:
    edge = desk.edge(HELLO, BYE)
    assert await ask(edge, "bye") == "Farewell."
    await desk.write(Entry(id="bye", phrasings=("Bye",), answer="See you."))
    later = NOW + FRESH_SECONDS
    assert [await ask(edge, word, later) for word in ("hi", "bye")] == ["Hello.", "See you."]


async def test_edge_without_a_directory_has_its_file(desk: Desk) -> None:
    edge = Shelf(None, [HELLO], estimate=estimate, background=desk.background)
    await edge.refresh(NOW)
    assert await ask(edge, "hi") == "Hello."
    assert edge.status() == {"version": 0, "unread": 0}


async def test_version_that_contradicts_the_file_is_not_taken(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    edge = desk.edge(HELLO)
    await desk.write(Entry(id="other", phrasings=("hi!",), answer="Go away."))
    await edge.refresh(NOW)
    assert await ask(edge, "hi") == "Hello."
    assert "going on with version 0, since the directory's cannot be used: phrasings: 'hi!' is answered" in caplog.text


@pytest.mark.parametrize("wrong", ["missing", "torn"])
async def test_version_that_has_not_come_whole_is_not_taken_before_it_has(desk: Desk, wrong: str) -> None:
    await desk.write(HELLO)
    edge = desk.edge()
    await edge.refresh(NOW)
    version = await desk.write(BYE)
    partition = f"curated/{version.book}"
    part = (await desk.store.items(partition))["0000"]
    if wrong == "missing":
        await desk.store.delete(partition, "0000")
    else:
        await desk.store.put(partition, "0000", {"entries": part["entries"].replace("Farewell", "Fare")})
    await edge.refresh(NOW + 60)
    assert await ask(edge, "hi") == "Hello."
    await desk.store.put(partition, "0000", part)
    await edge.refresh(NOW + 120)
    assert await ask(edge, "hi") is None
    assert await ask(edge, "bye") == "Farewell."


async def test_directory_of_a_later_program_leaves_the_last_version_answering(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    edge = desk.edge(HELLO)
    await desk.store.put("curated", "current", {"book": "9"})
    await desk.store.put("curated", "9", {"book": "9", "shape": "new"})
    await edge.refresh(NOW)
    assert await ask(edge, "hi") == "Hello."
    assert "the directory's cannot be used" in caplog.text


# -- versions ------------------------------------------------------------------------------------------------------


async def test_versions_count_up_and_name_what_was_done(desk: Desk) -> None:
    await desk.write(HELLO, note="import a.csv")
    await desk.write(HELLO, BYE, note="import b.csv")
    versions = await desk.archive.versions()
    assert [(version.version, version.entries, version.note) for version in versions] == [
        (1, 1, "import a.csv"),
        (2, 2, "import b.csv"),
    ]
    assert await desk.archive.current() == versions[-1]
    assert await desk.archive.entries(versions[0]) == [HELLO]


async def test_rolled_back_version_answers_again_and_the_next_one_counts_on(desk: Desk) -> None:
    first = await desk.write(HELLO)
    second = await desk.write(BYE)
    await desk.archive.roll_back(first, after=second)
    assert await ask(desk.edge(), "hi") == "Hello."
    assert (await desk.write(HELLO, BYE)).version == 3


async def test_change_on_top_of_another_change_is_refused_and_changes_nothing(desk: Desk) -> None:
    first = await desk.write(HELLO)
    second = await desk.write(HELLO, BYE)
    with pytest.raises(Conflict, match="somebody else"):
        await desk.archive.write([BYE], after=first, now=NOW, token="x", note="")
    with pytest.raises(Conflict):
        await desk.archive.roll_back(first, after=first)
    assert await desk.archive.current() == second


async def test_old_versions_go_and_the_one_that_counts_stays(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "VERSIONS_KEPT", 2)
    first = await desk.write(HELLO)
    for _ in range(3):
        last = await desk.write(BYE)
    assert [version.version for version in await desk.archive.versions()] == [3, 4]
    assert await desk.store.items(f"curated/{first.book}") == {}
    assert await desk.archive.entries(last) == [BYE]


async def test_version_that_counted_before_is_kept_however_many_were_made_since(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of several mistakes is rolled back to the first; the first must still be there after the last of them."""
    monkeypatch.setattr(archives, "VERSIONS_KEPT", 2)
    good = await desk.write(HELLO)
    for _ in range(4):
        mistake = await desk.write(BYE)
        await desk.archive.roll_back(good, after=mistake)
    assert mistake.before == good.version
    assert await ask(desk.edge(), "hi") == "Hello."


async def test_many_and_large_entries_are_kept_in_several_parts(desk: Desk) -> None:
    entries = [Entry(id=f"e{i}", phrasings=(f"问题 {i}",), answer='"' * 40_000) for i in range(20)]
    version = await desk.write(*entries)
    assert version.parts > 3
    assert await desk.archive.entries(version) == entries


async def test_no_entries_are_a_version_too(desk: Desk) -> None:
    await desk.write(HELLO)
    await desk.write()
    assert await ask(desk.edge(), "hi") is None


# -- changes -------------------------------------------------------------------------------------------------------


def test_import_counts_up_what_it_changes_and_leaves_the_rest() -> None:
    before = [HELLO, BYE, Entry(id="same", phrasings=("x",), answer="y", version=4)]
    new, changed = (
        Entry(id="new", phrasings=("n",), answer="n", version=9),
        Entry(id="bye", phrasings=("B",), answer="b"),
    )
    edition = brought_in(before, [new, changed, Entry(id="same", phrasings=("x",), answer="y")], replace=False)
    assert {entry.id: entry.version for entry in edition.entries} == {"bye": 2, "hello": 1, "new": 1, "same": 4}
    assert (edition.new, edition.changed, edition.same, edition.gone) == (["new"], ["bye"], ["same"], [])


def test_import_in_place_of_all_takes_out_what_the_file_has_not() -> None:
    edition = brought_in([HELLO, BYE], [HELLO], replace=True)
    assert (edition.entries, edition.same, edition.gone) == ([HELLO], ["hello"], ["bye"])
    assert edition.changes_anything
    assert not brought_in([HELLO], [HELLO], replace=True).changes_anything


def test_taken_out_entries_are_named() -> None:
    edition = taken_out([HELLO, BYE], ["bye", "nobody"])
    assert (edition.entries, edition.gone) == ([HELLO], ["bye"])


# -- the file --------------------------------------------------------------------------------------------------------

HEAD = "id,phrasings,answer\n"


def test_file_of_the_configuration_is_read(tmp_path: Path) -> None:
    (tmp_path / "faq.csv").write_text(HEAD + "hello,Hi,Hello.\n")
    assert load_file(tmp_path / "faq.csv", estimate=estimate) == [HELLO]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEAD + "a,Hi,\n", "faq.csv:2: answer: is empty"),
        (HEAD + "a,Hi,x\nb,hi!,y\n", "faq.csv:3: phrasings: 'hi!' is answered by 'a' and by 'b', for the same"),
        (None, "faq.csv: No such file"),
    ],
)
def test_file_that_cannot_be_used_is_a_mistake_of_the_configuration(
    tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "faq.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError) as caught:
        load_file(path, estimate=estimate)
    assert str(caught.value).startswith(f"answers.curated: {tmp_path}/{message}")
