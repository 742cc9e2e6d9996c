"""What an import gives back: formats, guesses, hashes, cards, and the real public sets."""

import json
import subprocess
import sys
from pathlib import Path

import openpyxl
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wenfang.core.errors import Broken, Invalid, NotFound
from wenfang.core.examples import Examples, Span
from wenfang.core.ports import Cancelled, Quiet
from wenfang.data.importing import import_file, import_splits
from wenfang.data.leaks import leaked_rows
from wenfang.data.version import iter_examples, load_examples, save_splits

HERE = Path(__file__).parent


@pytest.fixture
def loaded(tmp_path, blobs):
    """Import one file and load it again."""

    def go(name, content, **wishes):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        got = import_file(path, blobs=blobs, progress=Quiet(), **wishes)
        return got, load_examples(got.manifest, blobs)

    return go


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.csv", "text,label\n好,1\n坏,0\n"), ("a.csv", "label;内容\n1;好\n0;坏\n"), ("a.csv", "好,1\n坏,0\n好的,1\n坏了,0\n很好,1\n"), ("a.tsv", "label\ttext_a\n1\t好\n0\t坏\n"), ("a.txt", "好\t1\n坏\t0\n"),
        ("a.txt", "1\t好好好\n0\t坏坏坏\n1\t好好\n0\t坏坏\n"), ("a.jsonl", '{"sentence":"好","label":1,"label_des":"x"}\n{"sentence":"坏","label":0,"label_des":"y"}\n'),
        ("a.jsonl", '{"data":"好","label":["1"]}\n{"data":"坏","label":["0"]}\n'), ("a.json", '[\n{"text":"好","label":"1"},\n{"text":"坏","label":"0"}\n]'), ("a.json", '{"data": [{"标题":"好","类别":"1"},{"标题":"坏","类别":"0"}], "n": 2}'),
        ("a", "text,label\n好,1\n坏,0\n"), ("a.data", '{"text":"好","label":"1"}\n{"text":"坏","label":"0"}\n'),
    ],
)  # fmt: skip
def test_classification_in_every_text_format(loaded, name, content):
    got, examples = loaded(name, content)
    assert got.task == "classification"
    assert [t[0] for t in examples.texts[:2]] == ["好", "坏"]
    assert examples.labels[:2] == ["1", "0"]
    assert {"task", "text", "label"} <= set(got.guessed)


def test_what_was_said_is_not_guessed(loaded):
    got, examples = loaded("a.csv", "a,b,c\n好,1,x\n坏,0,y\n", text="a", label="c", task="classification")
    assert examples.labels == ["x", "y"]
    assert not {"task", "text", "label"} & set(got.guessed)


def test_parquet_with_class_names_and_with_tokens(tmp_path, loaded):
    features = {"info": {"features": {"text": {"dtype": "string"}, "label": {"names": ["差评", "好评"], "_type": "ClassLabel"}}}}
    table = pa.table({"text": ["好", "坏"], "label": pa.array([1, 0], pa.int64())}).replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, tmp_path / "a.parquet")
    assert loaded("a.parquet", None)[1].labels == ["好评", "差评"]
    features = {"info": {"features": {"ner_tags": {"feature": {"names": ["O", "B-LOC", "I-LOC"], "_type": "ClassLabel"}, "_type": "Sequence"}}}}
    table = pa.table({"tokens": [["在", "北", "京"], ["好"]], "ner_tags": [[0, 1, 2], [0]]}).replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, tmp_path / "b.parquet")
    got, examples = loaded("b.parquet", None)
    assert (got.task, examples.texts, examples.spans) == ("tagging", ["在北京", "好"], [(Span(1, 3, "LOC"),), ()])
    pl.DataFrame({"text": ["好", None, "坏"], "label": pl.Series(["a", "b", "a"], dtype=pl.Categorical)}).write_parquet(tmp_path / "c.parquet")
    got, examples = loaded("c.parquet", None)
    assert examples.labels == ["a", "a"]
    assert examples.ids == ["all:1", "all:3"]


def test_xlsx_keeps_whole_numbers_and_row_numbers(tmp_path, loaded):
    book = openpyxl.Workbook()
    sheet = book.active
    for row in (["编号", "内容", "类别"], [1, "好", 1.0], [None, None, None], [2, "坏", 0.0], [3, "行", 1]):
        sheet.append(row)
    book.save(tmp_path / "a.xlsx")
    _, examples = loaded("a.xlsx", None)
    assert (examples.texts, examples.labels, examples.ids) == (["好", "坏", "行"], ["1", "0", "1"], ["all:2", "all:4", "all:5"])
    (tmp_path / "b.csv").write_bytes((tmp_path / "a.xlsx").read_bytes())
    assert ("card.suffix-differs", {"file": "b.csv", "format": "xlsx"}) in loaded("b.csv", None)[0].warnings


SPANS = [
    '{"text":"🙂我在北京","label":[[3,5,"LOC"]]}',
    '{"text":"🙂我在北京","entities":[{"id":1,"start_offset":3,"end_offset":5,"label":"LOC"}],"relations":[]}',
    '{"text":"🙂我在北京","label":{"LOC":{"北京":[[3,4]]}}}',
    '{"text":"🙂我在北京","spans":[{"start":3,"end":5,"label":"LOC","text":"北京"}]}',
    '{"text":"🙂我在北京","spans":[{"start":4,"end":6,"label":"LOC","text":"北京"}]}',
    '{"text":"🙂我在北京","entity_list":[{"entity_index":{"begin":3,"end":5},"entity_type":"LOC","entity":"北京"}]}',
    '{"tokens":["🙂","我","在","北","京"],"ner_tags":["O","O","O","B-LOC","I-LOC"]}',
]


@pytest.mark.parametrize("line", SPANS)
def test_spans_of_every_shape_are_code_points(loaded, line):
    got, examples = loaded("a.jsonl", line + "\n")
    assert got.task == "tagging"
    assert examples.texts == ["🙂我在北京"]
    assert examples.spans == [(Span(3, 5, "LOC"),)]


@pytest.mark.parametrize(
    "label, reason",
    [('[[0,9,"X"]]', "span-outside"), ('[[1,1,"X"]]', "span-outside"), ('[[0,2,"X"],[1,3,"Y"]]', "span-overlap"), ('[["0",2,"X"]]', "bad-span"), ('[{"start":0,"end":2,"label":"X","text":"不对"}]', "span-text-differs"), ("null", "missing-label")],
)  # fmt: skip
def test_rows_with_bad_spans_are_set_aside(loaded, label, reason):
    got, examples = loaded("a.jsonl", '{"text":"我在北京","label":[[2,4,"LOC"]]}\n{"text":"我在北京","label":' + label + "}\n")
    assert len(examples) == 1
    assert got.card_document["splits"]["all"]["quarantined"]["reasons"] == {reason: 1}


@pytest.mark.parametrize(
    "content, text, spans, repaired",
    [
        ("在 O\n北 B-LOC\n京 I-LOC\n", "在北京", [(1, 3)], 0), ("在 O\n北 B-LOC\n京 E-LOC\n", "在北京", [(1, 3)], 0), ("在 O\n北 B-LOC\n方 M-LOC\n京 E-LOC\n沪 S-LOC\n", "在北方京沪", [(1, 4), (4, 5)], 0),
        ("在 O\n北 I-LOC\n京 I-LOC\n", "在北京", [(1, 3)], 0), ("北 LOC\n京 LOC\n好 O\n", "北京好", [(0, 2)], 0), ("北 B-LOC\n京 I-LOC\n好 O\n沪 I-LOC\n", "北京好沪", [(0, 2), (3, 4)], 1),
        ("北 B-LOC\n京 M-LOC\n好 O\n", "北京好", [(0, 2)], 1), ("北\tB-LOC\n \tI-LOC\n京\tI-LOC\n", "北 京", [(0, 3)], 0), ("Tim B-PER\nCook I-PER\nvisited O\nBeijing B-LOC\n. O\n", "Tim Cook visited Beijing .", [(0, 8), (17, 24)], 0),
        ("-DOCSTART- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n", "EU rejects", [(0, 2)], 0), ("\u3000 O\n北 B-LOC\n", "\u3000北", [(1, 2)], 0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.conll", "a.bmes", "a.txt", "a.char.bmes", "a"])
def test_conll_schemes_joins_and_repairs(loaded, content, text, spans, repaired, name):
    if "LOC\n京 LOC" in content and name not in {"a.conll", "a.bmes", "a.char.bmes"}:
        pytest.skip("bare labels need the suffix")
    got, examples = loaded(name, content)
    assert examples.texts == [text]
    assert [(s.start, s.end) for s in examples.spans[0]] == spans
    assert got.card_document["splits"]["all"]["repaired"] == repaired


def test_the_content_hash_is_of_the_examples_alone(tmp_path, loaded, monkeypatch):
    rows = [(f'第 {i} 条，引号"和逗号,', str(i % 3)) for i in range(3000)]
    csv = "text,label\n" + "".join('"{}",{}\n'.format(t.replace('"', '""'), y) for t, y in rows)
    jsonl = "".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows)
    first, _ = loaded("a.csv", csv)
    assert loaded("b.csv", csv.encode("gb18030"))[0].content_hash == first.content_hash
    assert loaded("c.jsonl", jsonl)[0].content_hash == first.content_hash
    import wenfang.data.parts as parts
    import wenfang.data.source as source

    monkeypatch.setattr(parts, "PART_BYTES", 20_000)
    monkeypatch.setattr(parts, "GROUP_BYTES", 5_000)
    monkeypatch.setattr(source.Source.line_blocks, "__defaults__", (4096,))
    small, examples = loaded("d.csv", csv)
    assert small.content_hash == first.content_hash
    assert small.manifest != first.manifest
    assert examples.texts == [t for t, _ in rows]
    monkeypatch.undo()
    assert loaded("e.csv", csv.replace("第 7 条", "第 8 条", 1))[0].content_hash != first.content_hash
    assert loaded("f.csv", csv)[0].manifest != loaded("a.csv", csv)[0].manifest  # another file name, the same examples
    assert loaded("a.csv", csv)[0].manifest == first.manifest


def test_equal_rows_moved_between_columns_hash_differently(loaded):
    assert (
        loaded("a.jsonl", '{"text":"ab","label":"c"}\n{"text":"d","label":"x"}\n')[0].content_hash
        != loaded("a.jsonl", '{"text":"a","label":"c"}\n{"text":"bd","label":"x"}\n')[0].content_hash
    )


def test_splits_ids_and_groups(tmp_path, blobs):
    for name, n in (("train", 6), ("test", 3)):
        (tmp_path / f"{name}.csv").write_text("nr,text,label,customer\n" + "".join(f"{name}{i},{name} 文本 {i},{i % 2},c{i // 2}\n" for i in range(n)))
    got = import_splits(
        {"train": tmp_path / "train.csv", "test": tmp_path / "test.csv"}, text=None, label=None, task=None, blobs=blobs, progress=Quiet(), id="nr", group="customer"
    )
    assert got.rows == {"train": 6, "test": 3}
    test = load_examples(got.manifest, blobs, "test")
    assert (test.ids, test.groups) == (["test0", "test1", "test2"], ["c0", "c0", "c1"])
    assert len(load_examples(got.manifest, blobs)) == 9
    assert sum(map(len, iter_examples(got.manifest, blobs))) == 9
    with pytest.raises(NotFound) as e:
        load_examples(got.manifest, blobs, "tset")
    assert e.value.code == "dataset.split-unknown"


def test_later_files_take_the_columns_of_the_first(tmp_path, blobs):
    (tmp_path / "a.txt").write_text("很长很长的一条文本\t一\n另一条很长的文本啊\t二\n再来一条很长的文本\t一\n")
    (tmp_path / "b.txt").write_text("短\t二\n短\t一\n")
    got = import_splits({"train": tmp_path / "a.txt", "test": tmp_path / "b.txt"}, text=None, label=None, task=None, blobs=blobs, progress=Quiet())
    assert load_examples(got.manifest, blobs, "test").texts == ["短", "短"]
    (tmp_path / "a.jsonl").write_text('{"text":"北京","label":[[0,2,"LOC"]]}\n')
    (tmp_path / "b.jsonl").write_text('{"text":"你好","label":[]}\n')
    got = import_splits({"train": tmp_path / "a.jsonl", "test": tmp_path / "b.jsonl"}, text=None, label=None, task=None, blobs=blobs, progress=Quiet())
    assert load_examples(got.manifest, blobs, "test").spans == [()]


def test_a_damaged_blob_or_a_foreign_manifest_is_noticed(tmp_path, blobs, loaded):
    got, _ = loaded("a.csv", "text,label\n好,1\n坏,0\n")
    part = json.loads(blobs.get(got.manifest))["splits"]["all"]["parts"][0]["blob"]
    whole = (blobs.folder / part).read_bytes()
    (blobs.folder / part).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(Broken):
        load_examples(got.manifest, blobs)
    for foreign in (b"{}", b"not json", b"[1]"):
        with pytest.raises(Broken) as e:
            load_examples(blobs.put(foreign), blobs)
        assert e.value.code == "dataset.manifest-unknown"


def test_saved_splits_come_back(blobs):
    train = Examples("tagging", ["我在北京", "好"], [], [(Span(2, 4, "LOC"),), ()], ["a", "b"], ["g", "g"])
    test = Examples("tagging", ["去上海"], [], [(Span(1, 3, "LOC"),)], ["c"], ["h"])
    got = save_splits({"train": train, "test": test}, blobs=blobs, progress=Quiet())
    assert load_examples(got.manifest, blobs, "train") == train
    assert load_examples(got.manifest, blobs, "test") == test
    assert save_splits({"test": test, "train": train}, blobs=blobs, progress=Quiet()).content_hash == got.content_hash
    with pytest.raises(Invalid):
        save_splits({"train": train, "test": Examples("classification", ["a"], ["b"])}, blobs=blobs, progress=Quiet())
    with pytest.raises(Invalid):
        save_splits({"train": train.take([])}, blobs=blobs, progress=Quiet())


def test_a_cancelled_import_stops(tmp_path, blobs):
    class Cancelling(Quiet):
        def advance(self, n=1, **figures):
            raise Cancelled

    (tmp_path / "a.csv").write_text("text,label\n好,1\n坏,0\n")
    with pytest.raises(Cancelled):
        import_file(tmp_path / "a.csv", blobs=blobs, progress=Cancelling())


def test_the_face_imports_nothing_heavy():
    code = "import sys, wenfang.data.importing, wenfang.data.version, wenfang.data.leaks, wenfang.data.corpus, wenfang.data.split; print([m for m in ('polars','pyarrow','openpyxl') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


MEMORY = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from folder_blobs import FolderBlobs
from wenfang.core.ports import Quiet
from wenfang.data.importing import import_file
got = import_file(Path({path!r}), blobs=FolderBlobs({blobs!r}), progress=Quiet())
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))  # ru_maxrss would count the process that forked us
print(sum(got.rows.values()), int(peak.split()[1]) // 1024)
"""


def import_aside(path, folder):
    """(rows, peak MiB) of an import in a process of its own."""
    code = MEMORY.format(here=str(HERE), path=str(path), blobs=str(folder))
    return tuple(map(int, subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt"])
def test_memory_stays_bounded(tmp_path, name):
    row = {"a.csv": '"{},好用",{}\n', "a.jsonl": '{{"text": "{},好用", "label": "{}"}}\n', "a.txt": "{},好用\t{}\n"}[name]
    block = "".join(row.format(f"第{i}条" + "这个蓝牙耳机用了三天就坏了，" * 2, i % 20) for i in range(20_000))
    (tmp_path / name).write_text(("text,label\n" if name == "a.csv" else "") + block * 40)
    assert (tmp_path / name).stat().st_size > 80_000_000
    rows, peak_mib = import_aside(tmp_path / name, tmp_path / "blobs")
    assert rows == 800_000
    assert peak_mib < 600


@pytest.mark.slow
def test_a_file_of_one_gib_imports_under_one_gib(tmp_path):
    block = "".join(f"第{i}条这个蓝牙耳机用了三天就坏了\t{i % 20}\n" for i in range(100_000)).encode()
    with open(tmp_path / "a.txt", "wb") as f:
        while f.tell() < 1 << 30:
            f.write(block)
    rows, peak_mib = import_aside(tmp_path / "a.txt", tmp_path / "blobs")
    assert rows > 15_000_000
    assert peak_mib < 1024


def test_chnsenticorp_names_the_331_test_texts_that_stand_in_train(real, blobs):
    folder = real / "chnsenticorp"
    got = import_splits({"train": folder / "train.tsv", "valid": folder / "dev.tsv", "test": folder / "test.tsv"}, text=None, label=None, task=None, blobs=blobs, progress=Quiet())
    leak = next(x for x in got.card_document["leaks"] if (x["split"], x["against"]) == ("test", "train"))
    train, test = (load_examples(got.manifest, blobs, s) for s in ("train", "test"))
    assert leak["exact"]["count"] == 331
    assert leak["exact"]["rows"] == leaked_rows(train, test)
    assert leak["exact"]["lines"] == [r + 2 for r in leak["exact"]["rows"]]
    assert got.card_document["splits"]["train"]["duplicates"]["rows"] == 1351
    assert ("card.leak", {"split": "test", "against": "train", "rows": 331, "share_percent": 27.6}) in got.warnings


@pytest.mark.parametrize(
    "file, task, rows, labels",
    [
        ("thucnews_titles/dev.txt", "classification", 10_000, 10), ("resume_ner/dev.char.bmes", "tagging", 463, 8), ("cluener2020/dev.json", "tagging", 1343, 10), ("peoples_daily_ner/example.dev", "tagging", 2318, 3),
        ("waimai_10k/waimai_10k.csv", "classification", 11_987, 2), ("csl/cls_ctg/dev.tsv", "classification", 1000, 13), ("fewclue_iflytek/train_few_all.json", "classification", 3024, 119),
        ("video_music_book_ner/valid.txt", "tagging", 975, 3), ("banking77/test.csv", "classification", 3080, 77), ("zh_book_titles_longtail/book_titles.txt", "classification", 80_084, 15),
    ],
)  # fmt: skip
def test_real_sets_import_as_they_lie(real, blobs, file, task, rows, labels):
    got = import_file(real / file, blobs=blobs, progress=Quiet())
    assert (got.task, got.rows, len(got.labels)) == (task, {"all": rows}, labels)
