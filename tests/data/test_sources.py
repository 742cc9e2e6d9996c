"""Encodings are found for the whole file, and what cannot be decoded is told with its place."""

import pytest

from wenfang.core.errors import Invalid
from wenfang.data.source import open_source

CHINESE = "我们在北京买了蓝牙耳机，\n快递三天没有动，\n请尽快处理，谢谢。\n"


def whole(source):
    return b"".join(block for _, block in source.line_blocks()).decode()


@pytest.mark.parametrize(
    "encoding, found",
    [("utf-8", "utf-8"), ("utf-8-sig", "utf-8-sig"), ("utf-16", "utf-16-le"), ("utf-16-le", "utf-16-le"), ("utf-16-be", "utf-16-be"), ("gb18030", "gb18030"), ("gbk", "gb18030")],
)
@pytest.mark.parametrize("text", [CHINESE, CHINESE * 5000, "plain ascii\n" * 3 + CHINESE])
def test_the_encoding_is_found(tmp_path, encoding, found, text):
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(encoding))
    source = open_source(path)
    assert source.encoding == found
    assert whole(source) == text


def test_ascii_is_utf8(tmp_path):
    (tmp_path / "a.txt").write_text("hello\tgreet\n")
    assert open_source(tmp_path / "a.txt").encoding == "utf-8"


def test_gb18030_characters_outside_the_bmp(tmp_path):
    text = CHINESE + "🙂𠀀\n"
    (tmp_path / "a.txt").write_bytes(text.encode("gb18030"))
    assert whole(open_source(tmp_path / "a.txt")) == text


def test_one_bad_byte_in_utf8_is_told_with_line_and_byte(tmp_path):
    data = CHINESE.encode() + "第四行".encode()[:-1] + b"\xff\n" + CHINESE.encode()
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(Invalid) as e:
        open_source(tmp_path / "a.txt")
    assert e.value.code == "dataset.undecodable"
    at = len(CHINESE.encode()) + 6
    assert (e.value.fields["line"], e.value.fields["byte_in_line"], e.value.fields["byte"]) == (4, 6, at)


def test_utf8_cut_in_the_middle_of_a_character(tmp_path):
    (tmp_path / "a.txt").write_bytes(CHINESE.encode()[:-4])
    assert open_source(tmp_path / "a.txt").encoding == "utf-8"
    (tmp_path / "a.txt").write_bytes(CHINESE.encode()[:-2])
    with pytest.raises(Invalid) as e:
        open_source(tmp_path / "a.txt")
    assert e.value.code == "dataset.undecodable"
    assert e.value.fields["line"] == 3


def test_bad_byte_across_a_block_border(tmp_path):
    filler = ("汉" * 333 + "\n").encode()  # 1000 bytes
    data = filler * 1048 + filler[:575] + b"\xe6\xb1" + b"a\n" + filler
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(Invalid) as e:
        open_source(tmp_path / "a.txt")
    place = data.index(b"\xe6\xb1a")
    assert abs(e.value.fields["byte"] - place) <= 3
    assert e.value.fields["line"] == 1049


@pytest.mark.parametrize("encoding", ["big5", "shift_jis", "latin-1"])
def test_other_encodings_are_refused_and_told(tmp_path, encoding):
    text = {
        "big5": "這個產品的品質實在太差了，請問可以退貨嗎\n",
        "shift_jis": "この製品はとても使いやすいです。\n",
        "latin-1": "Où est passée ma commande? Très déçu, c'est inadmissible é\n",
    }[encoding]
    (tmp_path / "a.txt").write_bytes((text * 50).encode(encoding))
    with pytest.raises(Invalid) as e:
        open_source(tmp_path / "a.txt")
    assert e.value.code in {"dataset.encoding-unknown", "dataset.undecodable"}


def test_blocks_are_whole_lines_with_their_numbers(tmp_path):
    lines = [f"第{i}行" + "字" * (i % 50) for i in range(5000)]
    (tmp_path / "a.txt").write_bytes("\n".join(lines).encode("gb18030"))
    source = open_source(tmp_path / "a.txt")
    seen = []
    for first, block in source.line_blocks(4096):
        assert first == len(seen) + 1
        seen += block.decode().removesuffix("\n").split("\n")
    assert seen == lines


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a\tb\n" * 10)
    source = open_source(path)
    path.write_text("a\tb\n" * 11)
    with pytest.raises(Invalid) as e:
        list(source.line_blocks())
    assert e.value.code == "dataset.changed-while-read"
