import pytest

from wenfang.core import words
from wenfang.core.errors import BY_STATUS, Busy, Invalid, NotFound


def test_errors_speak_both_languages_and_fill_their_fields():
    e = NotFound("plugin.unknown", kind="family", name="crff", near="crf")
    assert "crff" in e.detail("en") and "crff" in e.detail("zh") and "crf" in e.hint("zh")
    assert e.detail("en") != e.detail("zh")


def test_a_problem_document_has_what_rfc_9457_wants():
    body = Busy("process.failed", kind="x", reason="y", retry_after_s=1.5).problem("en", "rq_1")
    assert body["status"] == 429 and body["retry_after_s"] == 1.5 and body["request_id"] == "rq_1" and body["type"].endswith("#process.failed")


def test_every_class_has_its_own_status():
    assert len(BY_STATUS) == 8 and BY_STATUS[422] is Invalid


@pytest.mark.parametrize(("header", "lang"), [("zh-CN,zh;q=0.9", "zh"), ("en-US", "en"), ("fr", "en"), ("zh_CN.UTF-8", "zh"), ("", "en")])
def test_language_of_a_header_or_locale(header, lang):
    assert words.language(header) == lang


def test_lists_are_joined_and_unknown_keys_shown():
    assert words.say("doctor.keys-loose", "en", names=["a", "b"]).startswith("Others can read private keys: a, b.")
    assert words.say("no.such-key", "en") == "no.such-key"
