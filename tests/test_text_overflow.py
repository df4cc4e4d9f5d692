"""The overflow policy: nothing is lost in silence, windows fit, every token counts once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import InputError
from tercet.text import POLICIES, CutReport, fit


@st.composite
def cases(draw):
    """ids (distinct: a token says where it comes from), limit, special, stride."""
    before, after = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    ids = list(range(1000, 1000 + before + after + draw(st.integers(0, 60))))
    room = draw(st.integers(1, 30))
    stride = draw(st.one_of(st.none(), st.integers(1, room)))
    return ids, room + before + after, (before, after), stride


@given(cases(), st.sampled_from(POLICIES[1:]))
def test_windows_fit_keep_the_ends_and_count_what_is_lost(case, policy):
    ids, limit, special, stride = case
    before, after = special
    report = CutReport()
    windows = fit(ids, limit, policy, special=special, stride=stride, report=report)
    for window in windows:
        assert len(window.ids) <= limit
        assert window.ids == [ids[position] for position in window.positions]
        assert window.ids[:before] == ids[:before]
        assert window.ids[len(window.ids) - after :] == ids[len(ids) - after :]
        assert window.weight == len(window.ids) - before - after
        assert list(window.positions) == sorted(window.positions)
    counted = [window.positions[place] for window in windows for place in window.counts]
    assert len(counted) == len(set(counted))  # each token counts at most once
    content = len(ids) - before - after
    assert report.texts == 1
    assert report.lost_tokens == len(ids) - len(counted)
    assert report.tokens_of_cut_texts == (content if report.lost_tokens else 0)
    assert bool(str(report)) == (report.lost_tokens > 0)
    if policy == "slide" or len(ids) <= limit:
        assert sorted(counted) == list(range(len(ids)))
    else:
        assert len(windows) == 1
        assert len(windows[0].ids) == limit  # no more is lost than must be


@given(cases())
def test_sliding_gives_every_token_its_context(case):
    ids, limit, special, stride = case
    before, after = special
    room = limit - before - after
    windows = fit(ids, limit, "slide", special=special, stride=stride)
    step = room if stride is None else stride
    for number, window in enumerate(windows[1:], 1):
        assert window.positions[before] == before + number * step
        # What is counted anew has all the tokens before it that the overlap allows.
        assert window.counts.start - before == room - step
        assert len(window.counts) >= 1
    assert all(window.weight == room for window in windows[:-1])


@given(cases())
def test_the_policies_keep_what_they_say(case):
    ids, limit, special, _ = case
    before, after = special
    text = ids[before : len(ids) - after]
    room = limit - before - after

    def kept(policy):
        (window,) = fit(ids, limit, policy, special=special)
        return window.ids[before : len(window.ids) - after]

    assert kept("keep-start") == text[:room]
    assert kept("keep-end") == text[-room:]
    middle_out = kept("middle-out")
    if len(text) > room:
        head = (room + 1) // 2
        assert middle_out == text[:head] + text[len(text) - (room - head) :]
    else:
        assert middle_out == text


def test_the_error_states_both_lengths_and_the_options():
    with pytest.raises(InputError) as caught:
        fit(range(712), 512, "error", name="line 12 of notes.txt")
    message = str(caught.value)
    for part in ("line 12 of notes.txt", "712", "512", *POLICIES[1:]):
        assert part in message
    assert "\n" not in message
    assert fit([1, 2], 2, "error")[0].ids == [1, 2]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fit([1, 2], 1, "cut"), ("'cut'", "middle-out")),
        (lambda: fit([1, 2, 3, 4], 2, "slide", special=(1, 1)), ("2 tokens", "at least 3")),
        (lambda: fit(range(9), 4, "slide", stride=0), ("0", "1..4")),
        (lambda: fit(range(9), 4, "slide", stride=5), ("5", "1..4")),
    ],
)
def test_bad_settings_are_named(call, words):
    with pytest.raises(InputError) as caught:
        call()
    assert all(word in str(caught.value) for word in words)


def test_the_report_reads_as_a_sentence():
    report = CutReport()
    for _ in range(927):
        fit([1], 10, "keep-start", report=report)
    for _ in range(73):
        fit(range(100), 59, "keep-start", report=report)
    assert str(report) == "7.3 % of texts lost 41 % of their tokens"
