"""The error browser and the user's checks, through a whole selection in place."""

import json

import pytest

from wenfang.core.errors import Invalid, NotFound
from wenfang.guard.roles import LOCAL, Actor
from wenfang.studio import operations
from worlds import separable, write_csv

OPS = operations()
CHECKS = '[slices.polite]\npattern = "谢谢"\n[price]\ncore_hour = 0.5\ncurrency = "CNY"\n'


def call(studio, operation, actor=LOCAL, /, **fields):
    op = OPS[operation]
    return studio.run(op, actor, op.request.model_validate(fields))


def noisy(n):
    """Separable texts of which some carry a wrong label: these stay errors whatever is learned."""
    return [(text, "物流" if i % 10 == 0 else label) for i, (text, label) in enumerate(separable(n))]


def test_errors_are_browsed_with_texts_for_those_who_may_read_them(studio, tmp_path):
    (tmp_path / "checks.toml").write_text(CHECKS, encoding="utf-8")
    data, checks = write_csv(tmp_path / "tickets.csv", noisy(600)), tmp_path / "checks.toml"
    verdict = call(studio, "selection.run", train=str(data), checks=str(checks), budget_s=8, families=["linear"])
    found = call(studio, "selection.errors", id=verdict.id)
    pairs = set(noisy(600))
    assert found.total == found.kept == found.matching == len(found.errors) > 0
    assert {"polite", "short"} <= set(found.slices)
    for error in found.errors:
        assert (error.text, error.gold) in pairs
        assert error.gold != error.predicted
        assert ("polite" in error.slices) == ("谢谢" in error.text)
    assert [e.score for e in found.errors] == sorted((e.score for e in found.errors), reverse=True)

    one = found.errors[0]
    same = call(studio, "selection.errors", id=verdict.id, gold=one.gold, predicted=one.predicted)
    assert {(e.gold, e.predicted) for e in same.errors} == {(one.gold, one.predicted)}
    polite = call(studio, "selection.errors", id=verdict.id, slice="polite", limit=1)
    assert polite.matching == sum("polite" in e.slices for e in found.errors)
    assert len(polite.errors) <= 1
    with pytest.raises(NotFound, match=r"selection\.no-slice") as e:
        call(studio, "selection.errors", id=verdict.id, slice="polit")
    assert e.value.fields["near"] == "polite"

    reader = Actor(id="ky_r", name="r", role="analyst", permissions=frozenset({"selection:read"}))
    blind = call(studio, "selection.errors", reader, id=verdict.id)
    assert {e.text for e in blind.errors} == {None}
    assert [e.gold for e in blind.errors] == [e.gold for e in found.errors]

    document = call(studio, "selection.show", id=verdict.id).document
    assert document["final"]["cost"]["currency"] == "CNY"
    assert any(s["name"]["fields"].get("name") == "polite" for s in document["final"]["slices"])
    assert not any(text in json.dumps(document, ensure_ascii=False) for text, _ in pairs), "no text in the document"


def test_checks_that_cannot_be_read(studio, tmp_path):
    data = write_csv(tmp_path / "t.csv", separable(30))
    for content, code in ((b"\xff\xfe", "checks.not-toml"), (b"[slices.x]\npattern='('", "checks.bad-slice"), (b"#" * (1 << 20) + b"##", "checks.not-toml")):
        (tmp_path / "c.toml").write_bytes(content)
        with pytest.raises(Invalid) as e:
            call(studio, "selection.run", train=str(data), checks=str(tmp_path / "c.toml"))
        assert e.value.code == code
    with pytest.raises(NotFound, match=r"data\.no-file"):
        call(studio, "selection.run", train=str(data), checks=str(tmp_path / "none.toml"))


def test_the_documented_checks_are_valid():
    import re
    from pathlib import Path

    from wenfang.select.checks import read_checks
    from wenfang.select.robustness.perturbations import PERTURBATIONS
    from wenfang.select.robustness.suite import builtin

    page = (Path(__file__).parents[2] / "docs" / "checks.md").read_text(encoding="utf-8")
    checks = read_checks(re.search(r"```toml\n(.*?)```", page, re.DOTALL)[1])
    assert checks.slices and checks.price and checks.report.examples == 12
    assert not checks.robustness["negation"].waits
    assert [n for n in (*PERTURBATIONS, *builtin()) if f"`{n}`" not in page] == []
