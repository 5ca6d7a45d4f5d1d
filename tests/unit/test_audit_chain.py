"""The chain of an audit log: what was changed, removed, put in, moved or cut off is found, and where."""

from __future__ import annotations

import hashlib
import json

import pytest

from isochrone.audit.chain import NOTHING, Chain, link_of, place_in, writer_name
from isochrone.audit.verification import Report, verify
from isochrone.stores.entries import Checkpoint
from tests.audits import NOW, entry, placed, written


def checked(
    lines: list[bytes], checkpoints: list[Checkpoint] | None = None, *, since: int = 0
) -> list[tuple[str, str]]:
    report = verify(placed(lines), checkpoints or [], since=since)
    return [(finding.where, finding.what) for finding in report.findings]


def heads(lines: list[bytes]) -> list[Checkpoint]:
    return verify(placed(lines)).heads


def test_line_is_json_and_its_hash_can_be_computed_by_anybody() -> None:
    first, second = written(1)
    told = json.loads(second)
    assert (told["writer"], told["seq"], told["record"], told["request_id"]) == ("w1", 1, "request", "r0")
    assert json.loads(first)["prev"] == NOTHING
    assert told["prev"] == json.loads(first)["hash"]
    assert hashlib.sha256(second.split(b',"hash"')[0]).hexdigest() == told["hash"]


def test_log_that_nobody_touched_is_intact() -> None:
    assert checked(written(5)) == []
    assert checked([]) == []


def test_changed_line_is_found_and_only_that_one() -> None:
    lines = written(5)
    lines[3] = lines[3].replace(b'"tenant":"t"', b'"tenant":"x"')
    assert checked(lines) == [("log:4", "was changed: entry 3 of writer w1 does not have its own hash")]


def test_line_that_was_changed_together_with_its_hash_breaks_the_chain_behind_it() -> None:
    lines = written(5)
    body = lines[3].split(b',"hash"')[0].replace(b'"tenant":"t"', b'"tenant":"x"')
    lines[3] = body + b',"hash":"' + hashlib.sha256(body).hexdigest().encode() + b'"}'
    assert checked(lines) == [
        ("log:5", "does not follow log:4: one of them was put in the place of another entry"),
    ]


def test_removed_lines_are_found() -> None:
    lines = written(6)
    assert checked(lines[:2] + lines[3:]) == [("log:3", "entry 2 of writer w1 is missing before this one")]
    assert checked(lines[:2] + lines[5:]) == [("log:3", "entries 2 to 4 of writer w1 are missing before this one")]


def test_removed_beginning_is_found() -> None:
    assert checked(written(3)[1:]) == [
        ("log:1", "the beginning of writer w1 is missing: entry 1 is its first one here")
    ]


def test_moved_line_is_found_where_files_keep_their_order() -> None:
    lines = written(4)
    lines[2], lines[3] = lines[3], lines[2]
    assert checked(lines) == [("log:4", "was moved: entry 2 of writer w1 comes after entry 3")]


def test_order_says_nothing_where_deliveries_may_change_it() -> None:
    lines = written(6, to="firehose")
    assert checked([lines[0], *reversed(lines[1:])]) == []


def test_same_line_twice_is_what_a_delivery_at_least_once_may_do() -> None:
    lines = written(3)
    report = verify(placed([*lines, lines[2], lines[3]]))
    assert (report.is_intact, report.repeated, report.entries) == (True, 2, 4)


def test_another_line_with_the_same_number_is_found() -> None:
    lines = written(2)
    other = Chain("w1")
    other.link(entry(7))
    forged = other.link(entry(8))
    assert checked([*lines, forged]) == [("log:4", "is another entry 1 of writer w1 than the one at log:2")]


def test_cut_end_is_found_by_a_checkpoint_and_only_by_one() -> None:
    lines = written(5)
    assert checked(lines[:4]) == []
    assert checked(lines[:4], heads(lines)) == [
        ("log:4", "the end of writer w1 is cut off: entry 5 was there, 3 is the last")
    ]


def test_one_cut_is_one_finding_however_many_checkpoints_show_it() -> None:
    lines = written(5)
    points = [point for end in (1, 3, 5, 6) for point in heads(lines[:end])]
    report = verify(placed(lines[:2]), points)
    assert [finding.what for finding in report.findings] == [
        "the end of writer w1 is cut off: entry 5 was there, 1 is the last"
    ]
    assert report.open_ended == 0
    assert [finding.what for finding in verify([], points).findings] == [
        "nothing is here of writer w1, who had written entry 5"
    ]
    forged = Chain("w1")
    anew = [lines[0], *(forged.link(entry(number)) for number in range(6))][1:]
    rewritten = [what for _, what in checked(anew, points) if "rewritten" in what]
    assert rewritten == ["entry 0 of writer w1 is not the one that the checkpoint saw: it was rewritten"]


def test_writer_that_is_gone_altogether_is_found_by_a_checkpoint() -> None:
    other = written(2, writer="w2")
    assert checked(written(1), [*heads(written(1)), *heads(other)]) == [
        ("checkpoint", "nothing is here of writer w2, who had written entry 2")
    ]


def test_chain_that_was_written_anew_is_found_by_a_checkpoint() -> None:
    known = heads(written(3))
    forged = Chain("w1")
    lines = [forged.link(entry(number)) for number in range(4)]
    assert ("log:4", "entry 3 of writer w1 is not the one that the checkpoint saw: it was rewritten") in checked(
        lines, known
    )
    assert ("log:1", "writer w1 does not begin as a writer does") in checked(lines)


def test_writer_whom_no_checkpoint_knows_is_found() -> None:
    made_up = written(1, writer="w9")
    assert checked([*written(1), *made_up], heads(written(1))) == [
        ("log:3", "no checkpoint knows writer w9: its entries may be made up")
    ]


def test_entries_since_the_last_checkpoint_are_counted_as_not_vouched_for() -> None:
    report = verify(placed(written(5)), heads(written(3)))
    assert (report.is_intact, report.open_ended) == (True, 2)


@pytest.mark.parametrize("kept", [20, 150])
def test_torn_line_is_harmless_where_the_whole_one_stands_elsewhere_and_a_finding_where_not(kept: int) -> None:
    lines = written(3)
    torn = lines[2][:kept]
    report = verify(placed([lines[0], lines[1], torn, lines[2], lines[3]]))
    assert report.is_intact == (place_in(torn) is not None)
    assert not verify(placed([lines[0], lines[1], torn])).is_intact


def test_beginning_of_a_writer_that_began_after_that_must_be_there() -> None:
    since = int(NOW * 1000)
    young, old = (written(9, writer=writer_name(began, "x")) for began in (NOW, NOW - 1))
    assert checked(young, since=since) == checked(old[5:], since=since) == []
    for cut in (1, 5):
        (where, what) = checked(young[cut:], since=since)[0]
        assert (where, f"the beginning of writer {int(NOW * 1000)}-x is missing" in what) == ("log:1", True)


def test_log_may_begin_in_the_middle_when_it_is_told_since_when() -> None:
    lines, since = written(9), int(NOW * 1000) + 4
    assert checked(lines[5:], since=since) == []
    points = [Checkpoint("w1", seq, link.hash, since) for seq in (4, 8) if (link := link_of(lines[seq]))]
    assert checked(lines[5:], points, since=since + 1) == []
    assert checked(lines[6:], points, since=since) == [
        ("log:1", "the beginning of writer w1 is cut off: entry 4 was there")
    ]


def test_interleaved_writers_do_not_disturb_each_other() -> None:
    one, two = written(3), written(3, writer="w2")
    mixed = [line for pair in zip(one, two, strict=True) for line in pair]
    report: Report = verify(placed(mixed))
    assert (report.is_intact, report.writers, report.entries) == (True, 2, 8)
